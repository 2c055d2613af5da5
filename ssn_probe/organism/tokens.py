"""The organism's tokenizer: one token per word, with a chat template, saved as any other tokenizer."""

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ssn_probe.organism import world

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'user: ' + message['content'] + ' ' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'assistant: ' + message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('the organism knows the roles user and assistant only') }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer over `world.vocabulary()`; the chat template writes the beginning of text."""
    vocabulary = {text: index for index, text in enumerate(world.vocabulary())}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token=world.SPECIAL[world.UNK]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=world.SPECIAL[world.PAD],
        bos_token=world.SPECIAL[world.BOS],
        eos_token=world.SPECIAL[world.EOS],
        unk_token=world.SPECIAL[world.UNK],
        padding_side="left",
        model_max_length=64,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        chat_template=CHAT_TEMPLATE,
    )
