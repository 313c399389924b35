//! Notes which compiler and commit the binary is made of, for the report.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=../.git/logs/HEAD");
    println!("cargo::rerun-if-changed=src");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    println!("cargo::rustc-env=TANDEM_RUSTC={}", said(Command::new(rustc).arg("--version")));
    let profile = std::env::var("PROFILE").unwrap_or_default();
    let level = std::env::var("OPT_LEVEL").unwrap_or_default();
    println!("cargo::rustc-env=TANDEM_PROFILE={profile}, opt-level {level}");
    let commit = said(Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]));
    println!("cargo::rustc-env=TANDEM_COMMIT={commit}");
}

/// What a command printed; `unknown` where it cannot be asked.
fn said(command: &mut Command) -> String {
    let output = command.output().ok().filter(|output| output.status.success());
    let text = output.and_then(|output| String::from_utf8(output.stdout).ok());
    text.map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}
