"""What a call of score asks for, checked: everything that needs no network computed.

`options` are those of the command score.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Sequence

from jseg.counting import agreeing, counted
from jseg.data.classes import ClassSet, class_set
from jseg.data.numbering import with_map
from jseg.evaluation import inputs, results
from jseg.evaluation.aesthetic import read_aesthetic
from jseg.evaluation.scoring import limits
from jseg.outputs.places import check_cache, check_inputs


@dataclass(frozen=True)
class Job:
    """What the options ask for, checked: everything that needs no network computed."""

    items: List[inputs.Item]
    real: List[Path]
    aesthetic: Dict[str, float]  # by stem
    classes: ClassSet
    remarks: List[str]


def checked(options) -> Job:
    """Read every file once, and ask whether the scores can be written; raises DataError."""
    classes = with_map(class_set(options.classes), options.map, options.ignore)
    items, remarks = inputs.find_items(
        options.results, options.labels, options.references, options.predictions, options.partial
    )
    remarks = [classes.summary(), *remarks]
    check_places(options, items)

    # A single reference is no set: there is then no distance, which is said.
    aesthetic: Dict[str, float] = {}
    if options.aesthetic:
        stems = [item.stem for item in items]
        aesthetic, more = read_aesthetic(options.aesthetic, stems, options.aesthetic_max)
        remarks += more
    real, more = inputs.find_real(options.real or options.references, 2 if options.real else 1)
    remarks += more + inputs.check_items(items, classes, options.ignore)
    remarks += limits(len(items), real, aesthetic, options.aesthetic_max, bool(options.inception))
    if not options.real:
        remarks.append(
            f"no --real: the {counted(len(real), 'image[s]')} in {real[0].parent} "
            f"{agreeing(len(real), '[is the real one|are the real ones]')}"
        )
    return Job(items, real, aesthetic, classes, remarks)


def check_places(options, items: Sequence[inputs.Item]) -> None:
    """Raise OutputError for an output or a cache that would take an input's place, or mix with
    files of others.
    """
    # All that is read, and the folders that it is looked for in.
    groups = [(item.result, item.label, item.reference, item.prediction) for item in items]
    files, output = [path for group in groups for path in group if path], Path(options.output)
    places = _given(options, "results", "labels", "references", "real", "predictions")
    places += [path.parent for path in files]
    files += _given(options, "flowseg", "inception", "aesthetic", "classes")

    results.check_output(output, Path(options.results), files, places)
    if options.flowseg is not None:
        names = [f"{results.PREDICTIONS}/{item.stem}.png" for item in items]
        check_inputs(output, "--output", names, files, places)
    if options.cache:
        check_cache(options.cache, "--cache", output, files, places)


def _given(options, *names: str) -> List[Path]:
    """The paths that these options give."""
    return [Path(getattr(options, name)) for name in names if getattr(options, name)]


def settings(options, flowseg, inception, features: str) -> dict:
    """What the scores depend on beside the files' content.

    flowseg, inception: the weight files, or None. features: the kind of the features.
    """

    def named(weights):
        return weights and {"file": weights.path.name, "sha256": weights.sha256}

    folders = ("results", "labels", "references", "real", "predictions", "aesthetic")
    paths = {name: getattr(options, name) for name in folders}
    return {
        **{name: path and str(Path(path).resolve()) for name, path in paths.items()},
        "flowseg": named(flowseg),
        "inception": named(inception),
        "features": features,
        "classes": options.classes,
        "ignore": options.ignore,
        **({"map": options.map} if options.map else {}),
    }
