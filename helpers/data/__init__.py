"""Loaders: one per data set format, each returning a `datasets.Dataset`, none guessing.

What cannot be used raises `DataError`, which names the file, the row and the mend.
What is skipped is counted and printed.
"""

from helpers.data.alpaca import load_alpaca
from helpers.data.columns import add_text, balanced, report_marks
from helpers.data.conversations import load_conversations, to_alpaca
from helpers.data.corpus import load_corpus
from helpers.data.gsm8k import load_gsm8k
from helpers.data.held_out import check_held_out, hold_out
from helpers.data.meddialog import load_meddialog
from helpers.data.medical import load_medical_dialogues, medical_files, read_medical_csv
from helpers.data.medical_o1 import load_medical_o1, nearest
from helpers.data.notes import load_notes, load_questions
from helpers.data.odometer import check_labels, field_accuracy, load_odometer_excel, load_truth, majority, parse_reading
from helpers.data.preferences import load_preferences
from helpers.data.qa import load_qa
from helpers.data.quiz import load_quiz
from helpers.data.rows import DataError, read_json_rows
from helpers.data.s1k import load_s1k

__all__ = [
    "DataError",
    "add_text",
    "balanced",
    "check_held_out",
    "check_labels",
    "field_accuracy",
    "hold_out",
    "load_alpaca",
    "load_conversations",
    "load_corpus",
    "load_gsm8k",
    "load_meddialog",
    "load_medical_dialogues",
    "load_medical_o1",
    "load_notes",
    "load_odometer_excel",
    "load_preferences",
    "load_qa",
    "load_questions",
    "load_quiz",
    "load_s1k",
    "load_truth",
    "majority",
    "medical_files",
    "nearest",
    "parse_reading",
    "read_json_rows",
    "read_medical_csv",
    "report_marks",
    "to_alpaca",
]
