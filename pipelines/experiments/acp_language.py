"""Adaptive cross-modal prototypes [ACP: Liu et al. 2021, CVPR], Figure 4a: language models, MSR-VTT to MSVD.

Manifests, stores of the clips and `sentence-bert` as in `acp_msrvtt_msvd`. The other stores of captions:

    featcache extract msrvtt_msvd_captions.csv hf:google-bert/bert-base-uncased     # hf-google-bert--bert-base-uncased
    featcache extract msrvtt_msvd_captions.csv hf:FacebookAI/roberta-base           # hf-FacebookAI--roberta-base
    featcache extract msrvtt_msvd_captions.csv hf:openai-community/gpt2             # hf-openai-community--gpt2
    featcache train-head acp_language && featcache evaluate acp_language
    featcache table acp_language
    featcache table acp_language --metric v2t/R@1

24 runs of 9,200 steps, of which `acp_msrvtt_msvd` has done 6; the hours are not measured yet.

The paper's text does not name the models of its figure: it names Sentence-Transformer, which it uses everywhere else,
and reports that the language model matters a lot. The other three are our choice: BERT, from which this Sentence-BERT
was trained, RoBERTa, and GPT-2, which reads from left to right. Their row of a caption is the mean over its tokens, of
768 numbers, as is Sentence-BERT's. Any other model of captions can take their place (docs/extractors.md).
The text does not state the figure's shift and measure either: MSR-VTT to MSVD and R@1 are our choice.

Here a row's language model makes the text keels and also the vector that the text encoder reads. So each model also has
a row CE, which has no keels: ACP minus CE is what the prototypes add.

Fidelity, selection, and which settings are the paper's or ours (such as three seeds): as in `acp_msrvtt_msvd`.
"""

from heads.methods import acp, source_only
from pipelines.experiments._acp import STORES, feeds, table
from pipelines.experiments._rows import Row
from pipelines.experiments.acp_msrvtt_msvd import PUBLISHED as TABLE_2

LANGUAGES = {
    "Sentence-BERT": "sentence-bert",
    "BERT": "hf-google-bert--bert-base-uncased",
    "RoBERTa": "hf-FacebookAI--roberta-base",
    "GPT-2": "hf-openai-community--gpt2",
}
METHODS = {"CE": source_only.Params(), "ACP": acp.Params()}

RUNS = table(
    "msrvtt_msvd",
    ("msrvtt", "msvd"),
    {
        f"{name}, {language}": Row(method, changes={"feeds": feeds(STORES, "msrvtt_msvd_captions", language=store)})
        for name, method in METHODS.items()
        for language, store in LANGUAGES.items()
    },
)
NOTE = (
    "The language models other than Sentence-BERT, and the shift, are our choice: the paper's text does not name its "
    "own. ACP is as printed, without a temperature (τ = 1). A caption is one vector of its language model; the paper "
    "uses CE's encoder, with tokens and NetVLAD."
)
PUBLISHED = {f"{name}, Sentence-BERT": {"msrvtt→msvd": TABLE_2[name]["msrvtt→msvd"]} for name in METHODS}
