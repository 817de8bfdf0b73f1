"""Fine-tune a language model on an export of tsds-pipeline with TRL's SFTTrainer.

In tsds.toml of the project, so that records become chats:

    [export]
    layout = "chat"

and then, with `pip install trl datasets`:

    tsds refresh
    python trl_sft.py --model Qwen/Qwen3-0.6B --export my-project/exports/support --output support-model

Each epoch of the export is a sample of its own: with `[selection] epochs = 3` the model sees three different samples,
one after the other, instead of one sample three times.
"""

import argparse
import json
from pathlib import Path

import torch
from datasets import concatenate_datasets, load_dataset
from trl import SFTConfig, SFTTrainer


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune a model on an export of tsds-pipeline.")
    parser.add_argument("--model", required=True, help="a folder or a hub name")
    parser.add_argument("--export", required=True, type=Path, help="my-project/exports/TASK, in layout chat")
    parser.add_argument("--output", required=True, help="where the model is saved")
    parser.add_argument("--max-steps", type=int, default=-1, help="end after so many steps")
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()

    manifest = json.loads((arguments.export / "manifest.json").read_text("utf-8"))
    epochs = [
        load_dataset(str(arguments.export), f"epoch-{epoch}", split="train").shuffle(seed=epoch)
        for epoch in range(manifest["epochs"])
    ]
    trainer = SFTTrainer(
        model=arguments.model,
        train_dataset=concatenate_datasets(epochs).select_columns("messages"),
        args=SFTConfig(
            output_dir=arguments.output,
            num_train_epochs=1,  # the fresh samples are the epochs
            train_sampling_strategy="sequential",  # in their order
            max_steps=arguments.max_steps,
            learning_rate=arguments.learning_rate,
            per_device_train_batch_size=arguments.batch_size,
            bf16=torch.cuda.is_available(),
            logging_steps=1,
            save_strategy="no",
            report_to="none",
        ),
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
