"""Stand-ins for the modules that only Colab and Kaggle have; the secrets are in the JSON file that VAULT names."""

from pathlib import Path

MODULES = {
    "google/colab/__init__.py": "",
    "google/colab/userdata.py": """
import json, os
class SecretNotFoundError(Exception): pass
class NotebookAccessError(Exception): pass
def get(name):
    secrets = json.load(open(os.environ["VAULT"]))
    if name not in secrets:
        raise SecretNotFoundError(name)
    return secrets[name]
""",
    "kaggle_secrets.py": """
import json, os
class BackendError(Exception): pass
class UserSecretsClient:
    def get_secret(self, label):
        secrets = json.load(open(os.environ["VAULT"]))
        if label not in secrets:
            raise BackendError(f"No user secrets exist for label {label}")
        return secrets[label]
""",
}


def write(folder: Path) -> Path:
    """Write them into `folder`, for PYTHONPATH; returns it."""
    for name, source in MODULES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(source, encoding="utf-8")
    return folder
