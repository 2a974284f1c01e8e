"""Who writes what a corpus teaches: evidence in the data, the aligned model, or a model behind an endpoint."""

from onereason.cognition.teachers.base import Assignment, Draft, Teacher
from onereason.cognition.teachers.factory import (
    TEACHER_OPTIONS,
    add_teacher_arguments,
    load_teacher,
    teacher_from_arguments,
)

__all__ = [
    "TEACHER_OPTIONS",
    "Assignment",
    "Draft",
    "Teacher",
    "add_teacher_arguments",
    "load_teacher",
    "teacher_from_arguments",
]
