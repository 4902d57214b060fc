"""From the settings of a model to the model, one at a time, so that two large ones are never in memory together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plural_rlhf.settings.functions import import_function
from plural_rlhf.suites.models.endpoint import EndpointModel
from plural_rlhf.suites.models.functions import CallableModel, RecordedModel
from plural_rlhf.suites.models.jury import JuryModel, is_jury_folder
from plural_rlhf.suites.models.protocol import EvaluatedModel
from plural_rlhf.suites.models.pseudo import PseudoModel


if TYPE_CHECKING:
    from plural_rlhf.suites.config import ModelSection

__all__ = ["check_models", "open_models"]


def check_models(sections: Sequence[ModelSection]) -> None:
    """Raise before any work if a model cannot be there: no folder, no file, no function.

    Raises:
        FileNotFoundError: A folder or a file is missing, or the model that an adapter was trained on.
        ValueError: A function cannot be imported, a line of recorded texts cannot be read, or an adapter does not say
            what it was trained on.
    """
    from plural_rlhf.policies.base_models import adapter_base

    for section in sections:
        paths = [section.jury, section.recorded]
        if section.path is not None and (section.jury is not None or section.path.startswith((".", "/", "~"))):
            paths.append(Path(section.path))
        language_models = [*([] if section.path is None else [section.path]), *(section.mixed or {}).values()]
        paths += [Path(expert) for expert in (section.mixed or {}).values() if expert.startswith((".", "/", "~"))]
        for path in paths:
            if path is not None and not path.expanduser().exists():
                raise FileNotFoundError(f"model {section.label!r}: there is no {path}. Fix: give one that exists")
        for language_model in language_models:
            try:
                adapter_base(Path(language_model).expanduser())
            except (FileNotFoundError, ValueError) as error:
                raise type(error)(f"model {section.label!r}: {error}") from error
        if section.callable is not None:
            try:
                import_function(section.callable)
            except ImportError as error:
                raise ValueError(f"model {section.label!r}: {error}") from error
        if section.recorded is not None:
            RecordedModel(section.label, section.recorded)


def open_models(sections: Sequence[ModelSection], pseudo_models: Sequence[str] = ()) -> Iterator[EvaluatedModel]:
    """Load models when their turn comes, then the pseudo-models.

    Example:
        >>> [model.name for model in open_models([], ["gold", "uniform"])]
        ['gold', 'uniform']
    """
    for section in sections:
        yield _open(section)
    for name in pseudo_models:
        yield PseudoModel(name)


def _open(section: ModelSection) -> EvaluatedModel:
    if section.endpoint is not None:
        return EndpointModel(
            section.label,
            section.endpoint,
            str(section.model),
            key_env=section.key_env,
            concurrency=section.concurrency,
            prices=section.prices,
        )
    if section.callable is not None:
        function = import_function(section.callable)
        if section.gives == "option_shares":
            return CallableModel(section.label, option_shares=function)
        return CallableModel(section.label, write=function)
    if section.recorded is not None:
        return RecordedModel(section.label, section.recorded)
    if section.path is not None and is_jury_folder(section.path):
        return JuryModel(section.label, section.path)
    if section.mixed is not None:
        from plural_rlhf.suites.models.mixed import load_mixed

        return load_mixed(
            section.mixed,
            section.weights,
            name=section.label,
            mode=section.mode,
            chat=section.chat,
            batch_size=section.batch_size,
        )
    from plural_rlhf.suites.models.loading import load_causal_lm

    return load_causal_lm(
        str(section.path),
        name=section.label,
        jury=section.jury,
        weights=section.weights,
        chat=section.chat,
        batch_size=section.batch_size,
    )
