"""Run as a process of its own, in which this project cannot be imported: loads every folder it is given."""

import json
import sys
from pathlib import Path


class Refuse:
    """Finds nothing, and refuses this project's packages."""

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] in ("trainer", "orchestrator"):
            raise ModuleNotFoundError(f"No module named {name!r}")


def main(text: str, folders: list[str]) -> None:
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    for folder in folders:
        own = (Path(folder) / "modeling_assay.py").exists()
        trust = {"trust_remote_code": True} if own else {}
        model = AutoModelForCausalLM.from_pretrained(folder, **trust)
        ids = load_file(f"{folder}.ids.safetensors")["ids"]
        with torch.no_grad():
            logits = model(ids).logits
        labelled = model(ids, labels=ids)
        labelled.loss.backward()
        generated = model.generate(ids[:1, :4], max_new_tokens=3, do_sample=False)
        tensors = {"logits": logits, "generated": generated, "loss": labelled.loss.detach()}
        save_file({name: t.clone() for name, t in tensors.items()}, f"{folder}.out.safetensors")
        tokenizer = AutoTokenizer.from_pretrained(folder, **trust)
        encoded = tokenizer(text).input_ids
        said = {"class": type(model).__name__, "ids": encoded, "text": tokenizer.decode(encoded)}
        Path(f"{folder}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    sys.meta_path.insert(0, Refuse())  # type: ignore[arg-type]
    main(sys.argv[1], sys.argv[2:])
