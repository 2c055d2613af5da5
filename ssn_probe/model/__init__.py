"""The model under study: where its neurons are, how it is loaded and identified, how it is asked, what it takes."""
