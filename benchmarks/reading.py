"""How much there is to read: lines of the files that docs/architecture.md recommends, and the files
in which code runs between a command and its result.

Examples:
  python benchmarks/reading.py               # sums of the reading lists
  python benchmarks/reading.py --update      # and the counts in docs/architecture.md set right
  python benchmarks/reading.py --run         # a synthesis and a training of tiny networks, traced
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGE = os.path.join(ROOT, "docs", "architecture.md")
ROW = re.compile(r"^\| `(jseg/[\w/]+\.py)` \| (\d+) \|", re.M)

# Runs a command in its process and prints, last, the files of jseg whose functions were called.
TRACE = """
import sys
from jseg.__main__ import main
called = set()
def note(frame, event, argument):
    if event == "call" and frame.f_code.co_name != "<module>":
        called.add(frame.f_code.co_filename)
sys.setprofile(note)
code = main(sys.argv[1:])
sys.setprofile(None)
print("\\n".join(sorted(path for path in called if path.startswith({package!r}))))
sys.exit(code)
"""


def lines(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as file:
        return sum(1 for _ in file)


def lists():
    """{heading: files} of the reading lists in docs/architecture.md."""
    with open(PAGE, encoding="utf-8") as file:
        sections = re.split(r"^### ", file.read(), flags=re.M)[1:]
    found = {text.partition("\n")[0]: [name for name, _ in ROW.findall(text)] for text in sections}
    return {heading: names for heading, names in found.items() if names}


def update():
    """Set every count of the page to that of its file."""
    with open(PAGE, encoding="utf-8") as file:
        text = file.read()
    text = ROW.sub(lambda row: f"| `{row.group(1)}` | {lines(row.group(1))} |", text)
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write(text)


def called_files(folder, *words):
    """The files of jseg in which functions run when that command runs in the folder."""
    program = TRACE.format(package=os.path.join(ROOT, "jseg") + os.sep)
    environment = {**os.environ, "PYTHONPATH": ROOT}
    output = subprocess.check_output(
        [sys.executable, "-c", program, *words],
        cwd=folder,
        env=environment,
        universal_newlines=True,
    )
    return [os.path.relpath(path, ROOT) for path in output.splitlines() if path.startswith(ROOT)]


def run():
    with tempfile.TemporaryDirectory() as folder:
        size = ["--width", "64", "--height", "48"]
        called_files(folder, "landscapes", "--output", "drawn", "--count", "12", *size)
        inference = ["test", "--input_path", "drawn/test", "--img_path", "drawn/train"]
        training = ["train_flowseg", "--data", "drawn/train", "--layout", "landscape"]
        stages = '{"stages": [{"guidance": 2, "respacing": "ddim10", "start_index": 2}]}'
        with open(os.path.join(folder, "stages.json"), "w") as file:
            file.write(stages)
        for words in (
            inference + ["--stages", "stages.json", "--limit", "1"],
            training + ["--output", "run", "--preset", "tiny", "--steps", "2", "--seed", "1"],
        ):
            names = called_files(folder, *words)
            print(f"{words[0]}: code runs in {len(names)} files, {sum(map(lines, names))} lines")
            print("  " + " ".join(names))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--update", action="store_true", help="set the counts of the page right")
    parser.add_argument("--run", action="store_true", help="trace two commands")
    arguments = parser.parse_args()
    if arguments.update:
        update()
    for heading, names in lists().items():
        print(f"{heading}: {len(names)} files, {sum(map(lines, names))} lines")
    if arguments.run:
        run()


if __name__ == "__main__":
    main()
