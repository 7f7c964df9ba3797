//! How many instructions the rows take: the figures that a busy machine does not change.
//!
//! The benchmark runs itself once more under valgrind's callgrind, which counts inside of [`picks`] alone
//! and writes down its count after each call. A library for this (`gungraun`, once `iai-callgrind`) brings a
//! runner that must be installed in just its version; what is needed here are two options and a sum.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{PICKS, Row};

/// What the benchmark is told when it is to be counted: its only argument.
pub(crate) const COUNTED: &str = "--counted";

/// Picks of a row that are counted.
const COUNTED_PICKS: usize = 1_024;

/// Asks a row for picks. Not inlined, since callgrind knows it by its name.
#[inline(never)]
pub(crate) fn picks(row: &mut Row<'_>, count: usize) {
    for number in 0..count {
        row(black_box(number));
    }
}

/// Counts a row; `None` counts what the counting costs.
pub(crate) fn count(row: Option<&mut Row<'_>>) {
    match row {
        Some(row) => {
            // What is done once, on a first pick, is not what a pick costs.
            (0..PICKS / 100).for_each(&mut *row);
            picks(row, COUNTED_PICKS);
        }
        None => picks(&mut |_| {}, COUNTED_PICKS),
    }
}

/// The instructions of a pick of each row, in order; says why if there are none.
pub(crate) fn all() -> Result<Vec<f64>, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = std::env::temp_dir().join(format!("pick-counted-{}", std::process::id()));
    std::fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let counts = run(&program, &folder).and_then(|()| read(&folder));
    // It is in the folder for things that may go.
    let _ = std::fs::remove_dir_all(&folder);
    let mut counts = counts?.into_iter();
    let empty = counts.next().ok_or("nothing was counted")?;
    Ok(counts
        .map(|count| (count - empty) / COUNTED_PICKS as f64)
        .collect())
}

fn run(program: &Path, folder: &Path) -> Result<(), String> {
    let out = format!("--callgrind-out-file={}/out", folder.display());
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--toggle-collect=pick::counted::picks"]);
    valgrind.args(["--dump-after=pick::counted::picks", &out]);
    valgrind.arg(program).arg(COUNTED);
    let output = (valgrind.output()).map_err(|error| format!("valgrind: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        let told = String::from_utf8_lossy(&output.stderr);
        Err(format!("valgrind: {}: {told}", output.status))
    }
}

/// The sums of all dumps, which are numbered from 1.
fn read(folder: &Path) -> Result<Vec<f64>, String> {
    let dump = |number: usize| -> PathBuf { folder.join(format!("out.{number}")) };
    let dumps = (1..).map(dump).take_while(|dump| dump.exists());
    dumps
        .map(|dump| {
            let text = std::fs::read_to_string(&dump);
            let text = text.map_err(|error| format!("{}: {error}", dump.display()))?;
            let sum = text.lines().find_map(|line| line.strip_prefix("summary:"));
            let sum = sum.and_then(|sum| sum.trim().parse().ok());
            sum.ok_or_else(|| format!("{}: no sum", dump.display()))
        })
        .collect()
}
