"""The paper's Table 2 and Figures 3a to 3c on a machine with one GPU and no network, in commands of ten minutes each.

    python benchmarks/paper.py pack --data cifar10_jpeg.tar.xz --out carry      # at home: what travels
    python benchmarks/paper.py run --carry carry --work WORK --out OUT          # there, until all is done
    python benchmarks/paper.py report --in OUT ... --out runs/out/paper         # at home: tables, fit, claims

Needed there: this checkout, the folder carried along, and a Python with torch, torchvision (with Pillow) and NumPy.
Each `run` stops by itself before its time (--minutes) is over, and goes on with what is in WORK. Killed at any moment
(kill -9 too), it goes on in the same way, from the last checkpoint. If WORK is lost with its machine, `run --from OUT`
keeps the trials that came back finished and begins the others anew. `run --small` is a rehearsal on a CPU: the small
network, with the images carried along or, without them, made-up ones.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from paper_pack import PaperError, pack, packed_images
from paper_plan import parts_of
from paper_run import Job, on_terminate, run


def main(words: Sequence[str] | None = None) -> int:
    """Carry out a command and return its exit code: 0 done, 2 bad input, 1 a failure of ours, 130 interrupted."""
    begun_s = time.time()
    args = parser().parse_args(words)
    try:
        return int(args.do(args, begun_s))
    except PaperError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(required=True)
    one = commands.add_parser("pack", help="collect what travels")
    one.add_argument("--data", type=Path, metavar="FILE", help="archive of train/<class>/*.jpg and test/<class>/*.jpg")
    one.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    one.add_argument("--python", nargs="+", default=["3.12"], metavar="3.N", help="of the machine (default: 3.12)")
    one.add_argument("--dry-run", action="store_true", help="only list")
    one.set_defaults(do=_pack)
    one = commands.add_parser("run", help="learn until the time is over")
    one.add_argument("--carry", type=Path, required=True, metavar="FOLDER", help="what `pack` made")
    one.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="stays on the machine")
    one.add_argument("--out", type=Path, metavar="FOLDER", help="results are copied there")
    one.add_argument(
        "--from", nargs="+", type=Path, default=[], metavar="FOLDER", dest="seed_from", help="earlier OUTs"
    )
    one.add_argument("--minutes", type=float, default=9.0, help="after which the command has ended (default: 9)")
    one.add_argument("--only", nargs="+", default=[], metavar="PART", help="default: all, the most important first")
    one.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda, with --small cpu")
    one.add_argument("--small", action="store_true", help="a rehearsal")
    one.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of every run file")
    one.set_defaults(do=_run)
    one = commands.add_parser("report", help="what came back")
    one.add_argument("--in", nargs="+", type=Path, required=True, metavar="FOLDER", dest="places", help="the OUTs")
    one.add_argument("--out", type=Path, default=Path("runs/out/paper"), metavar="FOLDER", help="run folders, reports")
    one.set_defaults(do=_report)
    one = commands.add_parser("learn")
    one.add_argument("asked")
    one.set_defaults(do=_learn)
    return top


def _pack(args: argparse.Namespace, begun_s: float) -> int:
    pack(args.data, args.out, args.python, args.dry_run)
    return 0


def _run(args: argparse.Namespace, begun_s: float) -> int:
    signal.signal(signal.SIGTERM, on_terminate)
    images = packed_images(args.carry)
    if images is None and not args.small:
        raise PaperError(f"{args.carry}: no images were packed, and only --small does without")
    parts = parts_of(args.only, args.small, args.set, made_up=images is None)
    device = args.device or ("cpu" if args.small else "cuda")
    out = args.out.absolute() if args.out else None
    job = Job(args.carry.absolute(), args.work.absolute(), out, args.minutes, device, parts, args.seed_from)
    return run(job, begun_s)


def _report(args: argparse.Namespace, begun_s: float) -> int:
    from paper_report import report

    return report(args.places, args.out)


def _learn(args: argparse.Namespace, begun_s: float) -> int:
    from paper_learn import main as learn

    return learn(str(args.asked))


if __name__ == "__main__":
    sys.exit(main())
