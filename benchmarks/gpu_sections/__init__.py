"""What a GPU says: the sections of ``benchmarks/gpu.py``, a file each, in the order they are done."""

from gpu_sections.plan import Plan, Section

# name: the function that does it, and the seconds it may take; together they are within the time of a whole call
SECTIONS = {
    "machine": Section("gpu_sections.card:card", 30),
    "correctness": Section("gpu_sections.correctness:correctness", 80),
    "joules": Section("gpu_sections.joules:joules", 200),
    "speed": Section("gpu_sections.speed:speed", 80),
    "profile": Section("gpu_sections.profile_pass:profile_pass", 30),
    "scorer": Section("gpu_sections.scorer:scorer", 30),
    "training": Section("gpu_sections.training:training", 30),
}

__all__ = ["SECTIONS", "Plan", "Section"]
