"""Score the results of the test command: mask accuracy, style similarity, FID, aesthetic value, and
the challenge's formulas from these.

RESULTS is what test wrote; LABELS and REFERENCES are its --input_path and --img_path. A term that
cannot be computed is named, with what would give it; no value is made up. OUTPUT gets images.csv
(a row per image), summary.json, gallery.html (all images and their numbers, sorted by a click),
and predictions/ where --flowseg is given. Label maps and features that are there already are not
made again.

Examples:
  python scripts/score.py --results results --labels data/test --references data/train \\
      --flowseg runs/flowseg/best.safetensors
  python scripts/score.py --results results --labels data/test --references data/train \\
      --predictions seen --aesthetic values.csv --inception pt_inception-2015-12-05-6726825d.pth
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import List, Optional

from jseg.commands import cli
from jseg.counting import counted

say = partial(cli.say, "score")


def parser():
    p = cli.make_parser("score", __doc__)

    # What is scored.
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

    # What sees the results: networks and values that the user brings.
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

    # Where to, and how the label files are read.
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
    cli.add_label_options(p, "; not scored")

    # How the work is done.
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
    _check_options(args)
    from jseg.evaluation import job as jobs

    job = jobs.checked(args)
    from jseg import runtime
    from jseg.checkpoint import describe
    from jseg.evaluation import features, measures, report, results, store
    from jseg.evaluation.segmentation import Segmentation, check_network
    from jseg.outputs.locks import held

    # The networks, and what the scores depend on.
    device, output, flowseg = runtime.device(args.device), Path(args.output), _network(args.flowseg)
    inception = describe(args.inception, sha256=True) if args.inception else None
    extractor = features.inception(inception) if inception else features.autoencoder()
    known = store.FeatureStore(args.cache or store.default_folder(), extractor.kind)
    settings, segmentation = jobs.settings(args, flowseg, inception, extractor.kind), None

    with held(output):
        jobs.check_places(args, job.items)  # again: another process may have written there since
        if flowseg:
            check_network(flowseg, job.classes, args.classes)
            segmentation = Segmentation(flowseg, job.items, output, device, args.device)
        known.folder.mkdir(parents=True, exist_ok=True)
        for remark in job.remarks + (segmentation.remarks if segmentation else []):
            say(remark)  # only now: a refusal is one line

        # The summary claims the folder before anything else is in it, so that an interrupted call
        # knows its own files.
        results.write_claim(output, settings)
        items = _segmented(job, segmentation) if segmentation else job.items
        rows, matrix = _scored(job, items, args.ignore)
        measure = measures.inception_distances if args.inception else measures.stand_in_distance
        distances = _distances(job, extractor, known, measure)
        terms = measures.gathered(rows, matrix, args.aesthetic_max, len(job.real), distances)
        scores = measures.challenge_scores(terms)

        seen = f"FlowSeg, {flowseg.path.name}" if flowseg else f"predictions of {args.predictions}"
        lines = report.lines(terms, scores, seen, not args.inception)
        report.write_page(output, items, rows, job.classes, args.ignore, lines, job.remarks)
        results.write(output, rows, terms, scores, settings, job.remarks)
    print(report.table(lines))
    files = [output / name for name in (results.TABLE, results.SUMMARY, results.GALLERY)]
    say(f"{counted(len(rows), 'image[s]')} scored: {', '.join(map(str, files))}")
    return 0


def _check_options(args) -> None:
    """Raise ValueError for options that cannot be meant."""
    if args.predictions and args.flowseg is not None:
        raise ValueError(
            "--predictions and --flowseg are both given; give one: label maps that are there, or "
            "a network that makes them"
        )
    if not 0 < args.aesthetic_max < float("inf"):
        raise ValueError(f"--aesthetic_max is {args.aesthetic_max}; expected more than 0")
    if args.inception and not Path(args.inception).is_file():
        raise FileNotFoundError(
            f"--inception {args.inception} {cli.no_file(args.inception)}; expected "
            "pt_inception-2015-12-05-6726825d.pth of pytorch-fid"
        )
    if args.flowseg and not Path(args.flowseg).is_file():
        raise FileNotFoundError(
            f"--flowseg {args.flowseg} {cli.no_file(args.flowseg)}; expected a file that "
            "train_flowseg wrote"
        )


def _network(given: Optional[str]):
    """The weight file of FlowSeg; None where it is not asked for, the shipped one for ""."""
    if given is None:
        return None
    from jseg.checkpoint import describe
    from jseg.flowseg.predict import SHIPPED

    return describe(given or SHIPPED, sha256=True)


def _segmented(job, segmentation) -> list:
    """The items with FlowSeg's label maps, made where they are missing."""
    from jseg.progress import ImageBar

    count, done = len(job.items), segmentation.done()
    say(f"segmenting {count - done} of {counted(count, 'result[s]')} with {segmentation.weights}")
    with ImageBar(count, done) as bar:
        for _ in segmentation.make(job.classes):
            bar.show()
    return segmentation.items_with_predictions()


def _scored(job, items, ignore):
    """(ImageScores of every item, confusion of all)."""
    from jseg.evaluation.scoring import score_items
    from jseg.progress import ImageBar

    say("comparing results with label maps and references")
    rows, total = [], 0
    with ImageBar(len(items)) as bar:
        for row, matrix in score_items(items, job.classes, ignore, job.aesthetic):
            rows.append(row)
            total = total + matrix
            bar.show()
    return rows, total


def _distances(job, extractor, known, measure) -> dict:
    """The set's distances by name; {} where a set is too small."""
    from jseg.evaluation import features
    from jseg.progress import ImageBar

    count, real = len(job.items), len(job.real)
    if min(count, real) < 2:
        say(
            f"no distance of sets: {counted(count, 'result[s]')} and "
            f"{counted(real, 'real image[s]')}; it needs two of each"
        )
        return {}
    paths = [item.result for item in job.items] + job.real
    keys = features.digests(paths)
    todo = len(known.missing(keys))
    say(
        f"features of {todo} of {counted(len(set(keys)), 'image[s]')} ({extractor.kind}), the "
        f"others are in {known.folder}"
    )
    with ImageBar(todo) as bar:
        for number in features.computed(paths, keys, extractor, known):
            for _ in range(number):
                bar.show()
    return measure(known.get(keys[:count]), known.get(keys[count:]))


if __name__ == "__main__":
    sys.exit(cli.run(main))
