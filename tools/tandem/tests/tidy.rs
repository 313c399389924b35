//! What the compiler does not check: the import table, banned words, documents in step.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every file below `path` with one of these endings, build folders left out.
fn files(path: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() {
            if !["target", ".git", "node_modules", "corpus", "artifacts"].contains(&&*name) {
                files(&path, endings, found);
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
}

fn sources(below: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    files(&root().join(below), &[".rs"], &mut found);
    assert!(!found.is_empty(), "{below} has sources");
    found.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The code without its tests and comments.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or("");
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Dependencies of a package, from its manifest: tests' own are free.
fn dependencies(package: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(package).join("Cargo.toml")).unwrap();
    let section = text.split("\n[dependencies]\n").nth(1).unwrap_or("");
    let section = section.split("\n[").next().unwrap_or("");
    section.lines().filter_map(|line| Some(line.split_once(" = ")?.0.to_owned())).collect()
}

#[test]
fn the_import_table_holds() {
    // Package, what it may depend on of ours, and words it must not know.
    let table: [(&str, &[&str], &[&str]); 5] = [
        ("shm", &[], &["tandem_core", "venue", "binance", "kraken", "coinbase", "money"]),
        (
            "core",
            &[],
            &["tandem_shm", "std::", "TcpStream", "SystemTime", "Instant::", "tungstenite"],
        ),
        ("feeds", &["tandem-core", "tandem-shm"], &["tandem_tools", "Opportunity", "gateway"]),
        (
            "gateway",
            &["tandem-core", "tandem-shm", "tandem-feeds"],
            &["tandem_tools", "tandem_sim", "Opportunity"],
        ),
        ("tools/sim", &[], &["tandem_core", "tandem_shm", "tandem_feeds"]),
    ];
    for (package, ours, banned) in table {
        for dependency in dependencies(package) {
            let own = dependency.starts_with("tandem");
            assert!(
                !own || ours.contains(&dependency.as_str()),
                "{package} must not use {dependency}"
            );
        }
        for (path, text) in sources(&format!("{package}/src")) {
            let code = code(&text);
            for word in banned {
                assert!(
                    !code.contains(word),
                    "{}: `{word}` is not {package}'s business",
                    path.display()
                );
            }
        }
    }
    let core = fs::read_to_string(root().join("core/src/lib.rs")).unwrap();
    assert!(core.contains("#![no_std]") && core.contains("deny(clippy::float_arithmetic)"));
    let outside: Vec<String> = dependencies("core");
    assert!(
        outside.iter().all(|d| ["thiserror", "zerocopy", "fixed"].contains(&d.as_str())),
        "{outside:?}"
    );
}

#[test]
fn unsafe_code_stands_where_it_may() {
    for package in ["core", "feeds", "tools", "bench"] {
        for (path, text) in sources(package) {
            let is_test = path.components().any(|part| part.as_os_str() == "tests");
            // Pinning and resource counts, for the measuring harness alone.
            let is_harness = path.ends_with("bench/src/harness.rs");
            let allowed = is_test || is_harness || path.ends_with("net/sockopt.rs");
            let used = code(&text).lines().any(|line| {
                line.contains("unsafe {")
                    || line.contains("unsafe impl")
                    || line.contains("unsafe fn")
            });
            assert!(!used || allowed, "{}: unsafe is for shm and net/sockopt.rs", path.display());
        }
    }
}

#[test]
fn nothing_is_left_unfinished() {
    for below in ["core", "shm", "feeds", "gateway", "tools", "bench"] {
        for (path, text) in sources(below) {
            if path.ends_with("tests/tidy.rs") {
                continue;
            }
            // The child processes of shm's tests are tests of the same binary, started by name.
            let text = text.replace("#[ignore = \"a child process\"]", "");
            for word in [
                "todo!(",
                "unimplemented!(",
                "FIXME",
                "XXX",
                "#[ignore",
                "allow(clippy::all)",
                "allow(dead_code)",
            ] {
                assert!(!text.contains(word), "{}: `{word}`", path.display());
            }
        }
    }
}

/// A module says its invariant before anything else.
#[test]
fn modules_state_their_invariant() {
    for package in ["core/src", "shm/src"] {
        for (path, text) in sources(package) {
            let names = ["fixtures.rs", "shm/src/lib.rs"];
            if names.iter().any(|name| path.ends_with(name)) {
                continue;
            }
            let docs: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
            assert!(
                docs.contains("nvariant"),
                "{}: no invariant in the module's documentation",
                path.display()
            );
        }
    }
}

/// What the project says of itself: its two commands first, and nothing of any machine's.
#[test]
fn documents_are_in_step() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let first = readme.lines().take(20).collect::<Vec<_>>().join("\n");
    assert!(
        first.contains("scripts/demo") && first.contains("scripts/test"),
        "both commands come first"
    );
    for folder in ["core", "feeds", "gateway", "shm", "tools", "bench", "scripts", "deploy"] {
        assert!(root().join(folder).is_dir(), "{folder} exists");
        assert!(readme.contains(&format!("`{folder}/`")), "README.md names {folder}/");
    }
    let mut all = Vec::new();
    files(&root(), &[".rs", ".md", ".toml", ".sh", "demo", "test", "run"], &mut all);
    // Spelt in parts, so that this file does not contain them.
    let banned = [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat(), [".lib", "rary"].concat()];
    for path in all {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for word in &banned {
            assert!(!text.contains(word.as_str()), "{}: `{word}`", path.display());
        }
    }
}

/// The commands of a page: `tandem …` in its code, as a shell would split them.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, part) in text.split("```").enumerate() {
        let pieces: Vec<&str> = match at % 2 {
            1 => part.lines().map(str::trim).collect(),
            // Every second piece between back quotes is code.
            _ => part.split('`').skip(1).step_by(2).collect(),
        };
        for command in pieces.iter().filter_map(|piece| piece.strip_prefix("tandem ")) {
            let mut words = Vec::new();
            for (at, part) in command.split('\'').enumerate() {
                match at % 2 {
                    0 => words.extend(part.split_whitespace().map(str::to_owned)),
                    _ => words.push(part.to_owned()),
                }
            }
            found.push(words);
        }
    }
    found
}

/// Every alert has its page, every page its alerts, and every command of a page is one.
#[test]
fn runbooks_are_there_and_their_commands_are_true() {
    use tandem_drain::alerts::Rule;
    let folder = root().join("deploy/runbooks");
    let mut pages = Vec::new();
    files(&folder, &[".md"], &mut pages);
    for rule in Rule::ALL {
        let page = folder.join(format!("{}.md", rule.runbook));
        let text = fs::read_to_string(&page).unwrap_or_else(|error| panic!("{rule:?}: {error}"));
        assert!(text.contains(&format!("`{}`", rule.id)), "{} says nothing of it", page.display());
    }
    let mut tried = 0;
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for words in commands(&text) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let is_command = tandem_tools::cli::is_command(&words);
            assert!(is_command, "{}: `tandem {}` is none", page.display(), words.join(" "));
            tried += 1;
        }
        for name in text.split('`').filter(|word| word.ends_with(".md") && !word.contains(' ')) {
            let linked = folder.join(name.trim_start_matches("deploy/runbooks/"));
            assert!(linked.exists(), "{}: {name} is not there", page.display());
        }
    }
    println!("{} pages, {tried} commands", pages.len());
    assert!(12 <= pages.len() && 60 < tried, "{} pages, {tried} commands", pages.len());
    for none in [&["starst"][..], &["pause", "--reson", "x"], &["journal", "shred", "DIR"]] {
        assert!(!tandem_tools::cli::is_command(none), "{none:?}");
    }
}
