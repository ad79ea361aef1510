"""Score the results of the test command: mask accuracy, style similarity, FID, aesthetic value, and
the challenge's formulas from these.

RESULTS is what test wrote; LABELS and REFERENCES are its --input_path and --img_path. A term that
cannot be computed is named, with what would give it; no value is made up. OUTPUT gets images.csv
(a row per image), summary.json, gallery.html (all images and their numbers, sorted by a click),
and predictions/ where --flowseg is given. Label maps and features that are there already are not
made again.

Examples:
  python scripts/score.py --results results --labels data/test --references data/train --flowseg runs/flowseg/best.safetensors
  python scripts/score.py --results results --labels data/test --references data/train --predictions seen --aesthetic values.csv \\
      --inception pt_inception-2015-12-05-6726825d.pth
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import List, Optional

from jseg.commands import cli


def parser():
    p = cli.make_parser("score", __doc__)
    p.add_argument(
        "--results",
        required=True,
        metavar="DIR",
        help="the images, NAME.jpg for the label map NAME.png",
    )
    p.add_argument(
        "--labels",
        required=True,
        metavar="DIR",
        help="folder of label maps and label_to_img.json, as test's --input_path",
    )
    p.add_argument(
        "--references",
        required=True,
        metavar="DIR",
        help="folder with the references (in imgs/ or directly), as --img_path",
    )
    p.add_argument(
        "--real",
        metavar="DIR",
        help="real images that FID compares with (default: all in --references)",
    )
    p.add_argument(
        "--predictions",
        metavar="DIR",
        help="label maps of the results, NAME.png of class ids, for the mask accuracy",
    )
    p.add_argument(
        "--flowseg",
        nargs="?",
        const="",
        metavar="WEIGHTS",
        help="instead: segment the results with this network of train_flowseg (no file: the small "
        "one that ships)",
    )
    p.add_argument(
        "--inception",
        metavar="WEIGHTS",
        help="InceptionV3 for FID: pt_inception-2015-12-05-6726825d.pth of pytorch-fid",
    )
    p.add_argument(
        "--aesthetic",
        metavar="FILE",
        help="aesthetic values, `name,value` a line or JSON {name: value}",
    )
    p.add_argument(
        "--aesthetic_max",
        type=float,
        default=10.0,
        metavar="MAX",
        help="the best aesthetic value possible (default 10)",
    )
    p.add_argument(
        "--output",
        default="./scores",
        metavar="DIR",
        help="folder for the tables and the gallery (default ./scores)",
    )
    p.add_argument(
        "--classes",
        default="landscape-29",
        help="class set of the label files: a name or a file (default landscape-29)",
    )
    p.add_argument(
        "--ignore",
        type=int,
        nargs="*",
        default=[],
        metavar="ID",
        help="label ids that mean nothing is known; not scored",
    )
    p.add_argument(
        "--map",
        nargs="*",
        default=[],
        metavar="VALUE:CLASS",
        help="values in label files that stand for another class, such "
        "as 255:1; CLASS is an id as stored, or a name",
    )
    p.add_argument(
        "--partial",
        action="store_true",
        help="score the results that are there, though others are missing",
    )
    p.add_argument(
        "--cache", metavar="DIR", help="where features are kept (default ~/.cache/jseg/features)"
    )
    p.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    return p


def main(argv: Optional[List[str]] = None) -> int:
    """Check everything, then compute, write and print; 0 when all is written."""
    args = parser().parse_args(argv)
    items, real, values, classes, notes = _checked_inputs(args)
    from jseg import runtime
    from jseg.checkpoint import describe
    from jseg.evaluation import features, measures, report, store
    from jseg.outputs.rules import held

    device, output = runtime.device(args.device), Path(args.output)
    args.inception = args.inception and describe(args.inception, sha256=True)
    extractor = features.inception(args.inception) if args.inception else features.autoencoder()
    kept = store.FeatureStore(args.cache or store.default_folder(), extractor.kind)
    with held(output):
        _check_places(args, items)  # once more: another run may have written there since
        stale: List[str] = []
        segmenter, run = _segmenter(args, items, classes, device, stale)
        kept.folder.mkdir(parents=True, exist_ok=True)
        for note in notes + stale:
            _tell(note)  # only now: an error is one line

        # The summary claims the folder before anything else is in it, so that an interrupted call
        # knows its own files.
        report.write_claim(output, _settings(args, extractor))
        items = _segmented(args, items, segmenter, run, classes)
        rows, matrix = _scored(items, values, classes, args.ignore)
        distances = _distances(
            items,
            real,
            extractor,
            kept,
            measures.inception_distances if args.inception else measures.stand_in_distance,
        )
        terms = measures.gathered(rows, matrix, args.aesthetic_max, len(real), distances)
        scores = measures.challenge_scores(terms)
        seen = (
            f"FlowSeg, {Path(args.flowseg).name}"
            if segmenter
            else f"predictions of {args.predictions}"
        )
        lines = report.lines(terms, scores, seen, not args.inception)
        report.write_page(output, items, rows, classes, args.ignore, lines, notes)
        report.write(output, rows, terms, scores, _settings(args, extractor), notes)
    print(report.table(lines))
    _tell(
        f"{len(rows)} images scored: {output / report.TABLE}, {output / report.SUMMARY}, "
        f"{output / report.GALLERY}"
    )
    return 0


def _checked_inputs(args):
    """(items, real images, {stem: aesthetic value} or {}, classes, notes), all checked that needs
    no network.
    """
    from jseg.data.classes import class_set
    from jseg.data.numbering import with_map
    from jseg.evaluation import inputs
    from jseg.evaluation.aesthetic import read_aesthetic

    if args.predictions and args.flowseg is not None:
        raise ValueError(
            "--predictions and --flowseg are both given; give one: label maps that are there, or "
            "a network that makes them"
        )
    if not 0 < args.aesthetic_max < float("inf"):
        raise ValueError(f"--aesthetic_max is {args.aesthetic_max}; expected more than 0")
    if args.inception and not Path(args.inception).is_file():
        raise FileNotFoundError(
            f"--inception {args.inception} {cli.no_file(args.inception)}; "
            f"expected pt_inception-2015-12-05-6726825d.pth of pytorch-fid"
        )
    notes: List[str] = []
    classes = with_map(class_set(args.classes), args.map, args.ignore)
    notes.append(classes.said())
    items = inputs.find_items(
        args.results, args.labels, args.references, args.predictions, args.partial, notes
    )
    _check_places(args, items)
    values = (
        read_aesthetic(args.aesthetic, [item.stem for item in items], args.aesthetic_max, notes)
        if args.aesthetic
        else {}
    )
    # A single reference is no set: there is then no distance, which is said.
    real = (
        inputs.find_real(args.real, notes=notes)
        if args.real
        else inputs.find_real(args.references, 1, notes)
    )
    notes += inputs.check_items(items, classes, args.ignore)
    if values and max(values.values()) <= 1 < args.aesthetic_max:
        notes.append(
            "no aesthetic value is above 1, the best possible is taken to be "
            f"{args.aesthetic_max:g}: if it is 1, give --aesthetic_max 1"
        )
    if not args.inception:
        notes.append(
            "no --inception: FID is not computed; bring pytorch-fid's "
            "pt_inception-2015-12-05-6726825d.pth. KID of our autoencoder's features stands in "
            "for it, which is no FID"
        )
    elif min(len(items), len(real)) < 2048:
        notes.append(
            f"FID of {len(items)} results and {len(real)} real images is too large by what few "
            "images bring; compare it only with FIDs of as many"
        )
    if not args.real:
        notes.append(f"no --real: the {len(real)} images in {real[0].parent} are the real ones")
    return items, real, values, classes, notes


def _check_places(args, items) -> None:
    """Refuse an output or a cache that would take an input's place, or mix with files of others."""
    from jseg.evaluation import inputs
    from jseg.outputs.rules import check_cache, check_inputs

    files, places = _inputs(args, items)
    output = Path(args.output)
    inputs.check_output(output, Path(args.results), files, places)
    if args.flowseg is not None:
        check_inputs(
            output,
            "--output",
            [f"{inputs.PREDICTIONS}/{item.stem}.png" for item in items],
            files,
            places,
        )
    if args.cache:
        check_cache(args.cache, "--cache", output, files, places)


def _inputs(args, items):
    """(files that are read, folders that they are looked for in): none of which a result may
    replace.
    """
    given = [
        Path(path)
        for path in (args.results, args.labels, args.references, args.real, args.predictions)
        if path
    ]
    files = [
        path
        for item in items
        for path in (item.result, item.label, item.reference, item.prediction)
        if path
    ]
    places = given + [path.parent for path in files]
    return files + [
        path for path in (args.flowseg, args.inception, args.aesthetic, args.classes) if path
    ], places


def _segmenter(args, items, classes, device, notes):
    """(FlowSeg's network, the record of its folder of label maps), or (None, None) if it is not
    asked for.
    """
    if args.flowseg is None:
        return None, None
    from jseg.checkpoint import describe
    from jseg.data.image_folder import Example
    from jseg.evaluation.inputs import PREDICTIONS
    from jseg.flowseg import segment
    from jseg.flowseg.predict import SHIPPED, Segmenter, network_config

    args.flowseg = args.flowseg or str(SHIPPED)
    if not Path(args.flowseg).is_file():
        raise FileNotFoundError(
            f"--flowseg {args.flowseg} {cli.no_file(args.flowseg)}; expected a file that "
            "train_flowseg wrote"
        )
    args.flowseg = describe(args.flowseg, sha256=True)
    count = network_config(args.flowseg).labels
    if count != len(classes):
        raise ValueError(
            f"--flowseg {args.flowseg} knows {count} classes, --classes {args.classes} has "
            f"{len(classes)}; expected equal classes"
        )

    # Label maps are taken again only if all that they depend on is as it was; this folder is
    # score's own, so others are made again.
    segmenter = Segmenter.from_file(args.flowseg, device=args.device)
    settings = {
        "weights": args.flowseg.sha256,
        "device": device,
        "code": segment.code(),
        **segment.options_of(segmenter),
    }
    images = [Example(item.stem, item.result) for item in items]
    run = segment.opened(
        Path(args.output) / PREDICTIONS,
        settings,
        images,
        segment.digests_of(images),
        notes=notes,
        remake=True,
    )
    return segmenter, run


def _segmented(args, items, segmenter, run, classes):
    """The items with FlowSeg's label maps, made where they are missing."""
    if segmenter is None:
        return items
    import dataclasses

    from jseg.data.image_folder import Example
    from jseg.evaluation.inputs import PREDICTIONS
    from jseg.flowseg import segment
    from jseg.progress import ImageBar

    output, images = (
        Path(args.output) / PREDICTIONS,
        [Example(item.stem, item.result) for item in items],
    )
    digests = segment.digests_of(images)
    done = len(segment.finished(images, output, run, digests, False))
    _tell(f"segmenting {len(images) - done} of {len(images)} results with {args.flowseg}")
    with ImageBar(len(images), done) as bar:
        for _ in segment.segment_folder(segmenter, images, output, run, classes, digests):
            bar.show()
    return [dataclasses.replace(item, prediction=output / f"{item.stem}.png") for item in items]


def _scored(items, values, classes, ignore):
    """(ImageScores of every item, confusion of all)."""
    from jseg.data.validation import Numbering
    from jseg.evaluation import inputs, measures
    from jseg.images import read_image
    from jseg.progress import ImageBar

    numbering, rows, total = Numbering.of(classes, ignore), [], 0
    _tell("comparing results with label maps and references")
    with ImageBar(len(items)) as bar:
        for item in items:
            label, _ = numbering.read(item.label)
            prediction = item.prediction and inputs.load_prediction(
                item.prediction, label.shape, classes
            )
            row, matrix = measures.score_image(
                item.stem,
                read_image(item.result),
                read_image(item.reference),
                label,
                prediction,
                len(classes),
                values.get(item.stem),
            )
            rows.append(row)
            total = total + matrix
            bar.show()
    return rows, total


def _distances(items, real, extractor, kept, measure):
    """The set's distances by name; {} where a set is too small."""
    from jseg.evaluation import features
    from jseg.progress import ImageBar

    if min(len(items), len(real)) < 2:
        _tell(
            f"no distance of sets: {len(items)} results and {len(real)} real images; it needs "
            "two of each"
        )
        return {}
    paths = [item.result for item in items] + list(real)
    keys = features.digests(paths)
    todo = len(kept.missing(keys))
    _tell(
        f"features of {todo} of {len(set(keys))} images ({extractor.kind}), the others are in "
        f"{kept.folder}"
    )
    with ImageBar(todo) as bar:
        for count in features.computed(paths, keys, extractor, kept):
            for _ in range(count):
                bar.show()
    return measure(kept.get(keys[: len(items)]), kept.get(keys[len(items) :]))


def _settings(args, extractor) -> dict:
    """What the scores depend on beside the files' content."""

    def resolved(path):
        return None if path is None else str(Path(path).resolve())

    def weights(path):
        from jseg.checkpoint import describe

        return path and {"file": Path(path).name, "sha256": describe(path, sha256=True).sha256}

    return {
        **{
            name: resolved(getattr(args, name))
            for name in ("results", "labels", "references", "real", "predictions", "aesthetic")
        },
        "flowseg": weights(args.flowseg),
        "inception": weights(args.inception),
        "features": extractor.kind,
        "classes": args.classes,
        "ignore": args.ignore,
        **({"map": args.map} if args.map else {}),
    }


def _tell(message: str) -> None:
    print(f"jseg score: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(cli.run(main))
