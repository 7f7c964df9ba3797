//! Has the linker put the functions that run side by side (`layout.txt`, which `cargo xtask layout`
//! makes): the program is several times as large as what it needs of itself, and memory is mapped
//! in pieces of 64 KiB, so scattered they would take most of it into memory.

use std::{env, fmt::Write, fs, path::Path};

const LIST: &str = "layout.txt";

fn main() {
    println!("cargo:rerun-if-changed={LIST}");
    let is = |key: &str, value: &str| env::var(key).is_ok_and(|it| it == value);
    // Where Rust brings its own linker, whose ways are known.
    let is_known = is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ENV", "gnu")
        && is("CARGO_CFG_TARGET_ARCH", "x86_64");
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    if !is_known || !is("PROFILE", "release") || flags.contains("mold") {
        return;
    }
    let list = fs::read_to_string(LIST).expect("layout.txt is beside build.rs");
    let mut script = "SECTIONS\n{\n  .text.used : {\n".to_owned();
    let names = list.lines().filter(|line| !line.starts_with('#'));
    for name in names {
        writeln!(script, "    *(.text.{name} .text.unlikely.{name})").expect("memory");
    }
    script.push_str("  }\n}\nINSERT BEFORE .text\n");
    let folder = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let file = Path::new(&folder).join("layout.ld");
    fs::write(&file, script).expect("OUT_DIR can be written to");
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", file.display());
}
