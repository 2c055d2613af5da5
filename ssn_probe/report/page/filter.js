// The runs that are shown: those that hold all of the words, and whose status, recipe and model are the chosen ones.
// What is chosen stays in the address, so that it is chosen still when the page is made anew, and after a look at a run.
{
  const form = document.querySelector("form.filter");
  const rows = [...document.querySelectorAll("table.runs tbody tr")];
  const count = form.querySelector("output");
  const show = () => {
    const words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const facets = [...form.querySelectorAll("select")].every((one) => !one.value || row.dataset[one.name] === one.value);
      row.hidden = !(facets && words.every((word) => text.includes(word)));
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = shown + " of " + rows.length + " shown";
    history.replaceState(null, "", "#" + new URLSearchParams(new FormData(form)));
  };
  const kept = new URLSearchParams(location.hash.slice(1));
  form.hidden = rows.length < 2;
  for (const [name, value] of kept) if (form.elements[name]) form.elements[name].value = value;
  if (kept.size) show();
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
}
