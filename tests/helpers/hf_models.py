"""Tiny models of Hugging Face with random weights, saved into folders as the hub has them. One function per family."""

import json

import torch

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "someone",
    "cuts",
    "the",
    "bread",
    "carrot",
    "onion",
    "number",
    "dog",
    "runs",
    "in",
    "park",
    "##s",
]


def saved(model, folder, **processor):
    """The model with weights that make its rows differ from window to window, and its preprocessing."""
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(torch.randn(tensor.shape) * 0.1)
    model.save_pretrained(folder)
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def tokenizer(folder):
    from transformers import BertTokenizer

    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizer.from_pretrained(folder, model_max_length=40).save_pretrained(folder)


def dinov2(folder):
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
    return saved(
        Dinov2Model(config),
        folder,
        image_processor_type="BitImageProcessor",
        do_center_crop=True,
        crop_size={"height": 28, "width": 28},
        do_convert_rgb=True,
        do_resize=True,
        size={"shortest_edge": 32},
        resample=3,
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )


def vit(folder):
    """As a classifier saves it: no pooler; and with a preprocessor file of 2021."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(**SMALL, image_size=32, patch_size=16)
    return saved(ViTForImageClassification(config), folder, do_normalize=True, do_resize=True, size=32)


def convnext(folder):
    from transformers import ConvNextConfig, ConvNextModel

    config = ConvNextConfig(hidden_sizes=[8, 16, 16, 24], depths=[1, 1, 1, 1], image_size=64)
    return saved(
        ConvNextModel(config), folder, feature_extractor_type="ConvNextFeatureExtractor", size=64, crop_pct=0.875
    )


def clip(folder):
    from transformers import CLIPConfig, CLIPModel

    text = SMALL | {"vocab_size": len(WORDS), "max_position_embeddings": 24, "eos_token_id": 3, "bos_token_id": 2}
    vision = SMALL | {"image_size": 32, "patch_size": 16}
    tokenizer(folder)
    return saved(
        CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)),
        folder,
        feature_extractor_type="CLIPFeatureExtractor",
        do_center_crop=True,
        crop_size=32,
        do_resize=True,
        size=32,
        resample=3,
        do_normalize=True,
        image_mean=CLIP_MEAN,
        image_std=CLIP_STD,
    )


def siglip(folder):
    from transformers import SiglipConfig, SiglipModel

    text = SMALL | {"vocab_size": len(WORDS), "max_position_embeddings": 24, "projection_size": 16}
    tokenizer(folder)
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=SMALL | {"image_size": 32, "patch_size": 16}))
    size = {"height": 32, "width": 32}
    return saved(model, folder, image_processor_type="SiglipImageProcessor", size=size, resample=3)


def videomae(folder):
    from transformers import VideoMAEConfig, VideoMAEModel

    config = VideoMAEConfig(**SMALL, image_size=32, patch_size=16, num_frames=4)
    return saved(
        VideoMAEModel(config), folder, feature_extractor_type="VideoMAEFeatureExtractor", size=32, crop_size=32
    )


def ast(folder):
    from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

    ASTFeatureExtractor(num_mel_bins=32, max_length=64).save_pretrained(folder)
    return saved(ASTModel(ASTConfig(**SMALL, num_mel_bins=32, max_length=64)), folder)


def wav2vec2(folder):
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    layers = {"conv_dim": (8, 8), "conv_stride": (40, 8), "conv_kernel": (50, 8), "num_feat_extract_layers": 2}
    return saved(Wav2Vec2Model(Wav2Vec2Config(**SMALL, **layers, num_conv_pos_embeddings=16)), folder)


def whisper(folder):
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    WhisperFeatureExtractor(feature_size=16, chunk_length=2).save_pretrained(folder)
    layers = {f"{part}_{what}": 2 for part in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    sizes = {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_mel_bins": 16, "vocab_size": 30}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    return saved(WhisperModel(WhisperConfig(**layers, **sizes, **tokens, max_source_positions=100)), folder)


def bert(folder):
    from transformers import BertConfig, BertModel

    tokenizer(folder)
    return saved(BertModel(BertConfig(**SMALL, vocab_size=len(WORDS), max_position_embeddings=40)), folder)


FAMILIES = {
    made.__name__: made for made in (dinov2, vit, convnext, clip, siglip, videomae, ast, wav2vec2, whisper, bert)
}
