"""`ssl doctor`: what is installed here, what it can do, what is missing and how to get it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys

from seeall import __version__
from seeall.data.pixels import cores, free_memory

_EXTRAS = {
    "timm": ("timm", "timm"),
    "av": ("av", "video"),
    "opencv-python-headless": ("cv2", "faces"),
    "fastapi": ("fastapi", "serve"),
    "pymilvus": ("pymilvus", "milvus"),
    "ray": ("ray", "ray"),
}
"""Package → what is imported of it, and the extra that installs it."""


def examine() -> dict[str, str]:
    """Name → a line about it."""
    facts = {
        "seeall": __version__,
        "python": f"{platform.python_version()} at {sys.executable}",
        "machine": f"{platform.system()} {platform.machine()}, {cores()} cores, {free_memory() / 2**30:.1f} GiB free",
        "disk": f"{shutil.disk_usage('.').free / 2**30:.1f} GiB free here",
    }
    for package in ("torch", "torchvision", "lightly", "pillow", "numpy", "pyarrow", "tensorboard"):
        facts[package] = _version(package) or f"missing: pip install {package}"
    facts["gpu"] = _gpu()
    facts["faiss"] = _faiss()
    for package, (module, extra) in _EXTRAS.items():
        found = importlib.util.find_spec(module) is not None
        version = _version(package) or "another package's"
        facts[module] = version if found else f"not installed; if wanted: pip install 'seeall[{extra}]'"
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads and threads.isdigit() and int(threads) < cores():
        facts["note"] = f"OMP_NUM_THREADS={threads} keeps torch and FAISS from using all {cores()} cores"
    return facts


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpu() -> str:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        bf16 = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no bf16, use --precision fp16"
        return f"{len(names)} x {names[0]}, CUDA {torch.version.cuda}, {bf16}"
    built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
    return f"none found, so everything runs on the CPU ({built}; a GPU needs its driver, see nvidia-smi)"


def _faiss() -> str:
    try:
        import faiss
    except ImportError as fault:
        return f"cannot be imported ({fault}): pip install faiss-gpu, or faiss-cpu where there is no wheel"
    gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    able = f"searches on {gpus} GPUs" if gpus else "searches on the CPU"
    return f"{faiss.__version__}, {able}, {faiss.get_compile_options().strip()}"
