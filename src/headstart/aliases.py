"""The names that other tools give our settings, and the places of settings that are given without one."""

from __future__ import annotations

from collections.abc import Collection

from headstart.core.settings import Keys, text_of

# Each is accepted wherever ours is, and said aloud once.
ALIASES = {
    alias: name
    for name, aliases in {
        "backbone": "model arch base_model model_name_or_path model_name encoder",
        "data": "dataset dataset_name data_dir train_dir train_data",
        "output_dir": "out output output_directory save_path",
        "lr": "learning_rate lr0 base_lr max_lr lr_max",
        "epochs": "num_train_epochs num_epochs max_epochs n_epochs",
        "batch_size": "bs batch per_device_train_batch_size train_batch_size",
        "accumulate": "gradient_accumulation_steps accumulate_grad_batches grad_accum_steps",
        "label_smoothing": "label_smoothing_factor smoothing",
        "mixup": "mixup_alpha",
        "cutmix": "cutmix_alpha",
        "layer_decay": "layerwise_decay layer_lr_decay",
        "head_multiple": "head_lr_multiple lr_mult",
        "weight_decay": "wd",
        "clip": "max_grad_norm gradient_clip_val clip_grad",
        "schedule": "scheduler lr_scheduler lr_scheduler_type sched",
        "warmup": "warmup_ratio",
        "optimizer": "optim opt",
        "ema": "ema_decay model_ema_decay",
        "augment": "aug augmentation augmentations",
        "patience": "early_stopping_patience early_stop",
        "metric": "metric_for_best_model eval_metric validation_metric monitor",
        "image_size": "imgsz img_size input_size",
        "time_limit": "time_budget max_time",
        "precision": "mixed_precision",
        "threads": "num_threads",
        "seed": "random_state random_seed",
        "name": "run_name experiment_name",
        "group_by": "group groups group_column",
        "folds": "k_folds kfold n_folds n_splits cv",
        "find_lr": "lr_find auto_lr_find auto_lr",
        "input_column": "image_column path_column text_column audio_column image_column_name text_column_name",
        "label_column": "label_column_name target_column labels label_columns target_columns",
        "label_separator": "labels_separator label_delimiter",
        "max_length": "max_seq_length max_seq_len max_len",
        "seconds": "max_length_seconds clip_seconds",
        "sampling_rate": "sample_rate sr",
        "blocks": "unfreeze",
        "val": "validation valid",
    }.items()
    for alias in aliases.split()
}

# Settings of the data that may be given without their place: ``channels=4`` is ``data.channels=4``.
SHORT = {
    **dict.fromkeys(("channels", "limit", "modality", "split", "task"), ("data",)),
    **dict.fromkeys(("input_column", "label_column", "label_separator", "split_column"), ("data",)),
    **dict.fromkeys(("on_unreadable", "max_unreadable", "max_length", "seconds", "sampling_rate"), ("data",)),
    "pooling": ("head",),
    **dict.fromkeys(("val", "test", "group_by", "folds"), ("data", "split")),
}

# Settings that people look for and that live elsewhere.
ELSEWHERE = {
    "resume": "resuming is asked for on the line: headstart fit --resume, or fit(…, resume=True)",
    "test_split": "the share of test rows is data.split.test",
    "val_split": "the share of validation rows is data.split.val",
    "freeze": "what trains is said by the stages: plan: [{thaw: {blocks: 2}}] thaws the last two blocks",
}


def home(path: Keys) -> Keys:
    """The whole path of a setting of the data that was given without its place; any other path as it is."""
    name = ALIASES.get(str(path[0]), str(path[0]))
    return (*SHORT[name], name, *path[1:]) if name in SHORT else path


def misplaced(path: Keys, top: Collection[str]) -> str:
    """What to write instead, where a setting was given in a place that is not its own: one of the ``top``, or one of
    ``SHORT``; "" where it is none of them, or a word that may mean much ("name").
    """
    name = str(path[-1])
    own = (*SHORT[name], name) if name in SHORT else (name,) if name in top and name != "name" else ()
    return f"it is {text_of(own)}" if own and own != path else ""
