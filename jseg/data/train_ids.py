"""Train ids: what *_labelTrainIds.png store in place of a data set's own numbers of the classes."""

from __future__ import annotations

from dataclasses import replace
from typing import List, Sequence, Tuple

from jseg.counting import agreeing, counted
from jseg.data.classes import IGNORED, ClassSet
from jseg.data.examples import Example
from jseg.data.folders import listing
from jseg.data.versions import LABEL_IDS, TRAIN_IDS
from jseg.files import DataError

UNTRAINED = ("unlabeled", "unlabelled", "void", "ignore", "ego vehicle", "out of roi")


def with_train_ids(classes: ClassSet, examples: Sequence[Example]) -> Tuple[ClassSet, List[str]]:
    """(the class set as the examples' *_labelTrainIds.png store it, remarks); 255 is ignored.

    Without such label maps it is the class set as it was. A file of classes says which train id
    each of its classes has; those of none are left out, which is remarked. A built-in set, and
    names without ids, count from 0. Raises DataError in one line where a file has ids alone, where
    several classes share a train id, and for label maps of two numberings.
    """
    stems = [example.label.stem.lower() for example in examples if example.label is not None]
    count = sum(stem.endswith(TRAIN_IDS.lower()) for stem in stems)
    by_id = sum(stem.endswith(LABEL_IDS.lower()) for stem in stems)
    plain = classes.file_ids == tuple(range(len(classes)))
    if by_id and classes.train_ids and not classes.numbered:
        raise DataError(
            f"{counted(by_id, 'label map[s] [is|are]')} *{LABEL_IDS}.png, and {classes.name} has "
            f"train ids alone; expected *{TRAIN_IDS}.png, or a column id in the file of classes"
        )
    if not count or (plain and not classes.numbered):
        return classes, []
    one_reading = classes.train_ids == classes.file_ids or (plain and not classes.train_ids)
    if count < len(examples) and (by_id or not one_reading):
        raise DataError(
            f"{count} of {len(examples)} label maps {agreeing(count, '[is|are]')} "
            f"*{TRAIN_IDS}.png, the others are not; expected one numbering, remove one kind"
        )

    # By the file's train ids, by its ids if they may be meant as train ids, else from 0 on.
    if classes.train_ids:
        return _by_train_ids(classes)
    if classes.numbered:
        _check_meant(classes, plain)
        return classes, []
    from_zero = replace(
        classes, ignore=(IGNORED,), file_ids=tuple(range(len(classes))), file_ignore=(IGNORED,)
    )
    remark = (
        f"*{TRAIN_IDS}.png count the classes of {classes.name} from 0 to {len(classes) - 1}, 255 "
        "being ignored"
    )
    return from_zero, [remark] * bool(classes.file_ids)


def _check_meant(classes: ClassSet, plain: bool) -> None:
    """Raise DataError unless a file's ids may be train ids: 0 to N - 1, none of them untrained."""
    untrained = [name for name in classes.names if name.lower() in UNTRAINED]
    if plain and not untrained:
        return
    why = f"which number others ({untrained[0]})" if plain else "which have gaps or begin later"
    raise DataError(
        f"the label maps are *{TRAIN_IDS}.png, and {classes.name} has ids alone, {why}; expected "
        f"a column trainId in the file of classes (255: none), or *{LABEL_IDS}.png"
    )


def _by_train_ids(classes: ClassSet) -> Tuple[ClassSet, List[str]]:
    """(the classes that have a train id, in its order, stored by it; remarks)."""
    ids = classes.train_ids
    places = [place for place, number in enumerate(ids) if number != IGNORED]
    places.sort(key=lambda place: ids[place])
    numbers = tuple(ids[place] for place in places)
    twice = [number for number, other in zip(numbers[1:], numbers) if number == other]
    if twice or not places:
        what = f"train id {twice[0]} twice" if twice else "no train id but 255"
        raise DataError(
            f"the label maps are *{TRAIN_IDS}.png, and {classes.name} has {what}; expected a train "
            "id of its own for every class that is trained on, 255 for the others"
        )

    untrained = [name for name, number in zip(classes.names, ids) if number == IGNORED]
    remark = f"*{TRAIN_IDS}.png are read by the train ids of {classes.name}, {len(places)} classes"
    if untrained:
        words = "[has|have] none and [is|are] ignored"
        remark += f"; {counted(len(untrained), words)}: {listing(untrained)}"
    trained = replace(
        classes,
        names=tuple(classes.names[place] for place in places),
        palette=classes.palette[places],
        ignore=(IGNORED,),
        file_ids=numbers,
        file_ignore=(IGNORED,),
        train_ids=numbers,
    )
    return trained, [remark] * (ids != classes.file_ids)
