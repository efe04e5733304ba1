"""The Chinese words of blocks that are tables."""

from __future__ import annotations

HEADERS = {
    "model": "模型", "bpp, original": "bpp（原报告）", "PSNR, original": "PSNR（原报告）",
    "enc (s)": "编码 (s)", "dec (s)": "解码 (s)", "enc, original": "编码（原报告）",
    "dec, original": "解码（原报告）", "curve": "曲线", "against": "相对于", "metric": "指标",
    "range, or why there is none": "范围，或无法计算的原因", "steps": "步数", "crops": "图像块数",
    "hours": "小时", "hardware": "硬件", "started from": "初始权重", "run": "运行",
    "side": "边长", "peak rate": "峰值学习率", "committed": "已提交",
    "file (bytes)": "文件（字节）", "estimate (bytes)": "估计（字节）",
    "gap (bytes)": "差（字节）", "gap": "差",
    "parameters": "参数量", "transforms (G)": "变换 (G)", "hyperprior (G)": "超先验 (G)",
    "context (G)": "上下文 (G)", "total (G)": "合计 (G)", "thop / total": "thop / 合计",
    "parameters, counted here": "参数量（本文）",
    "parameters, first print": "参数量（原报告第一版）",
    "MACs, first print": "MACs（原报告第一版）",
    "parameters, second print": "参数量（第二版）", "MACs, second print": "MACs（第二版）",
    "MACs of 64x3x256x256, counted here": "64x3x256x256 的 MACs（本文）",
    "MACs of 1x3x512x768, counted here": "1x3x512x768 的 MACs（本文）",
    "original's curve": "原报告曲线", "same architecture, published": "同结构的公开曲线",
    "the same, PSNR": "同左，PSNR", "original's model before it": "原报告的前一模型",
    "ratio": "比值",
    "Checkerboard's PSNR (dB)": "Checkerboard 的 PSNR (dB)",
    "JPEG at that PSNR (bpp)": "同 PSNR 的 JPEG (bpp)", "codec": "编解码器",
    "points in common": "共同点数", "largest difference in bpp (%)": "bpp 最大差 (%)",
    "in PSNR (dB)": "PSNR 最大差 (dB)", "remark": "备注", "megapixels": "百万像素",
    "encode (s/Mpx)": "编码 (s/Mpx)", "decode (s/Mpx)": "解码 (s/Mpx)",
    "peak memory, encode (MB)": "峰值内存，编码 (MB)",
    "peak memory, decode (MB)": "峰值内存，解码 (MB)",
}  # fmt: skip
SENTENCES = {
    "No results are committed yet.\n": "尚无提交的结果。\n",
    "No BD-rates are committed yet.\n": "尚无提交的 BD-rate。\n",
    "No checkpoints are committed yet.\n": "尚无提交的检查点。\n",
    "Not measured.\n": "尚未测量。\n",
}


def translated(block: str) -> str:
    """A table with its header in Chinese; other blocks by `SENTENCES`, or as they are."""
    if not block.startswith("| "):
        return SENTENCES.get(block, block)
    header, rest = block.split("\n", 1)
    cells = [HEADERS.get(cell, cell) for cell in header[2:-2].split(" | ")]
    return f"| {' | '.join(cells)} |\n{rest}"
