//! The architecture and the house rules, held by a test: who may depend on whom, and how a source file looks.
//!
//! D1  Dependencies point one way: `src -> actors -> cluster -> schema`.
//! D2  `loadtest` depends on none of them, so that drift in the contract shows up there.
//! D3  Only the server knows axum, only `schema` knows a storage driver, only the server (and `loadtest`) knows JSON.
//! D4  The builder of the image gets every directory that the manifest names.
//! H1  Every Rust file begins with `//!`: what it is, what it owns.
//! H2  A file has at most 500 lines without its tests.
//! H3  No `.unwrap()` outside tests.
//!
//! It reads the files as text and needs no TOML parser: the manifests are ours, and plain.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The crates of this workspace by directory; the server is the root.
const CRATES: [(&str, &str); 5] =
    [("agentchat", "."), ("actors", "actors"), ("cluster", "cluster"), ("schema", "schema"), ("loadtest", "loadtest")];

/// Lines a file may have before its tests (H2).
const FILE_LINES_MAX: usize = 500;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What kind of section a line like `[dev-dependencies]` opens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    /// Compiled into what we ship, build scripts included.
    Shipped,
    /// For tests only.
    Tests,
    Other,
}

/// The section that a header opens, and the crate it names itself (`[dependencies.serde]`).
fn section(header: &str) -> (Section, Option<&str>) {
    let header = header.trim_matches(['[', ']']);
    if header.starts_with("workspace.") {
        return (Section::Other, None);
    }
    // `[target.'cfg(unix)'.dependencies]` ends like the plain form.
    let (table, named) = match header.rsplit_once("dependencies.") {
        Some((before, name)) => (format!("{before}dependencies"), Some(name)),
        None => (header.to_owned(), None),
    };
    if table.ends_with("dev-dependencies") {
        (Section::Tests, named)
    } else if table.ends_with("dependencies") {
        (Section::Shipped, named)
    } else {
        (Section::Other, None)
    }
}

/// The crates that one manifest names in sections of kind `wanted`.
fn dependencies(manifest: &str, wanted: Section) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut current = Section::Other;
    let mut inside_named = false;
    for line in manifest.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with('[') {
            let (opened, named) = section(line);
            current = opened;
            inside_named = named.is_some();
            if let (true, Some(name)) = (current == wanted, named) {
                found.insert(name.to_owned());
            }
        } else if current == wanted && !inside_named {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            found.insert(name.trim_matches('"').to_owned());
        }
    }
    found
}

/// Every crate of the workspace with the dependencies of kind `wanted`.
fn graph(wanted: Section) -> BTreeMap<&'static str, BTreeSet<String>> {
    CRATES
        .iter()
        .map(|(name, dir)| (*name, dependencies(&read(&root().join(dir).join("Cargo.toml")), wanted)))
        .collect()
}

/// The crates of this workspace that `krate` names, tests included: a test may not turn an arrow round either.
fn ours(krate: &str) -> BTreeSet<String> {
    let own: BTreeSet<&str> = CRATES.iter().map(|(name, _)| *name).collect();
    [Section::Shipped, Section::Tests]
        .into_iter()
        .flat_map(|kind| graph(kind).remove(krate).unwrap_or_default())
        .filter(|name| own.contains(name.as_str()) && name != krate)
        .collect()
}

#[track_caller]
fn check_arrows(krate: &str, allowed: &[&str]) {
    let allowed: BTreeSet<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
    let extra: Vec<_> = ours(krate).difference(&allowed).cloned().collect();
    assert!(extra.is_empty(), "`{krate}` must not depend on {extra:?}");
}

#[track_caller]
fn check_only(dependency: &str, allowed: &[&str]) {
    for (krate, names) in graph(Section::Shipped) {
        assert!(allowed.contains(&krate) || !names.contains(dependency), "`{krate}` must not know `{dependency}`");
    }
}

#[test]
fn a_manifest_is_read_as_cargo_reads_it() {
    let manifest = "[dependencies]\na.workspace = true\nb = \"1\"\n# c = \"1\"\n[dependencies.d]\nversion = \"1\"\n\
                    [target.'cfg(unix)'.dependencies]\ne = { version = \"1\" }\n[dev-dependencies]\nf = \"1\"\n\
                    [workspace.dependencies]\ng = \"1\"\n[features]\nh = []\n";
    let names = |kind| dependencies(manifest, kind).into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(names(Section::Shipped), "a b d e");
    assert_eq!(names(Section::Tests), "f");
}

#[test]
fn every_member_of_the_workspace_is_known_here() {
    let manifest = read(&root().join("Cargo.toml"));
    let members = manifest.lines().find(|line| line.starts_with("members")).expect("a line `members = [...]`");
    let listed: BTreeSet<&str> = members.split('"').skip(1).step_by(2).collect();
    let known: BTreeSet<&str> = CRATES.iter().map(|(_, dir)| *dir).filter(|dir| *dir != ".").collect();
    assert_eq!(listed, known);
}

/// D4. Cargo refuses a manifest that names a target whose file is not there, so the builder of the image needs them all.
#[test]
fn the_image_gets_every_target_that_the_manifest_names() {
    let passed = read(&root().join("deploy/Dockerfile.dockerignore"));
    let passed: BTreeSet<&str> = passed.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let manifest = read(&root().join("Cargo.toml"));
    for (table, dir) in
        [("[[bench]]", "benches"), ("[[test]]", "tests"), ("[[bin]]", "src"), ("[[example]]", "examples")]
    {
        assert!(!manifest.contains(table) || passed.contains(dir), "{table} is named, and {dir} is left out");
    }
    for (_, dir) in CRATES {
        assert!(dir == "." || passed.contains(dir), "{dir} is a member, and left out");
    }
}

#[test]
fn dependencies_point_one_way() {
    check_arrows("agentchat", &["actors", "cluster", "schema"]);
    check_arrows("actors", &["cluster", "schema"]);
    check_arrows("cluster", &["schema"]);
    check_arrows("schema", &[]);
    check_arrows("loadtest", &[]);
    assert!(ours("agentchat").contains("actors"), "the reader of manifests sees nothing");
}

#[test]
fn what_a_crate_does_not_know() {
    check_only("axum", &["agentchat"]);
    check_only("tower-http", &["agentchat"]);
    check_only("lsm-tree", &["schema"]);
    check_only("fjall", &["schema"]);
    check_only("scylla", &["schema"]);
    check_only("redis", &["agentchat"]);
    check_only("serde_json", &["agentchat", "loadtest"]);
}

/// All Rust files of the workspace, build output excepted.
fn sources() -> Vec<PathBuf> {
    let mut pending: Vec<PathBuf> = ["src", "tests"].iter().map(|dir| root().join(dir)).collect();
    pending.extend(CRATES.iter().filter(|(_, dir)| *dir != ".").map(|(_, dir)| root().join(dir)));
    let mut found = Vec::new();
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path = entry.expect("a readable directory entry").path();
            let hidden =
                path.file_name().is_some_and(|name| name == "target" || name.to_string_lossy().starts_with('.'));
            if path.is_dir() && !hidden {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(found.len() > CRATES.len(), "the search for sources sees nothing");
    found
}

/// A whole file of tests: under a `tests` or `benches` directory, or named so by the module that holds it.
fn is_test_file(path: &Path) -> bool {
    let relative = path.strip_prefix(root()).unwrap_or(path);
    relative.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "benches")
        || path.file_stem().is_some_and(|stem| stem == "tests" || stem.to_string_lossy().ends_with("_tests"))
}

/// The lines before the `#[cfg(test)]` module that ends a file.
fn without_tests(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines.iter().enumerate().position(|(at, line)| {
        let module = lines[at + 1..].iter().map(|next| next.trim()).find(|next| !next.starts_with("#["));
        *line == "#[cfg(test)]" && module.is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'))
    });
    lines[..tail.unwrap_or(lines.len())].to_vec()
}

/// Collects what is wrong in all files, so that one run names everything.
#[track_caller]
fn check_sources(rule: &str, broken: impl Fn(&Path, &str) -> Option<String>) {
    let wrong: Vec<String> = sources()
        .iter()
        .filter_map(|path| {
            let what = broken(path, &read(path))?;
            Some(format!("{}: {what}", path.strip_prefix(root()).unwrap_or(path).display()))
        })
        .collect();
    assert!(wrong.is_empty(), "{rule}\n{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    check_sources("H1: the first line is `//! ...`", |_, text| {
        let first = text.lines().next().unwrap_or_default();
        (!first.starts_with("//! ")).then(|| format!("begins with {first:?}"))
    });
}

#[test]
fn no_file_outgrows_a_reader() {
    check_sources("H2: at most 500 lines without tests", |path, text| {
        let lines = without_tests(text).len();
        (lines > FILE_LINES_MAX && !is_test_file(path)).then(|| format!("{lines} lines"))
    });
}

#[test]
fn nothing_unwraps_outside_tests() {
    check_sources("H3: no `.unwrap()` outside tests", |path, text| {
        let code = without_tests(text);
        let at = code.iter().position(|line| line.contains(".unwrap()") && !line.trim_start().starts_with("//"))?;
        (!is_test_file(path)).then(|| format!("line {}", at + 1))
    });
}
