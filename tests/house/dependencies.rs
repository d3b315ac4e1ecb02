//! Every dependency has its reason: the tables of `Cargo.toml` against docs/dependencies.md.

const MANIFEST: &str = include_str!("../../Cargo.toml");
const PAGE: &str = include_str!("../../docs/dependencies.md");

/// The names on the left of a table of the manifest.
fn named(table: &str) -> Vec<&'static str> {
    let lines = MANIFEST.lines().skip_while(|line| *line != format!("[{table}]")).skip(1);
    let own = lines.take_while(|line| !line.starts_with('['));
    own.filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.split_once(" =")?.0))
        .collect()
}

/// The crates that begin the rows of a section of the page.
fn told(section: &str) -> Vec<&'static str> {
    let lines = PAGE.lines().skip_while(|line| *line != format!("## {section}")).skip(1);
    let own = lines.take_while(|line| !line.starts_with("## "));
    own.filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0)).collect()
}

#[test]
fn what_the_binary_depends_on_has_a_reason() {
    let named = named("dependencies");
    assert!(named.len() > 10, "Cargo.toml was not understood");
    assert_eq!(named, told("In the binary"), "docs/dependencies.md, in the order of Cargo.toml");
}

#[test]
fn what_tests_depend_on_has_a_reason() {
    for name in named("dev-dependencies") {
        assert!(
            PAGE.contains(&format!("`{name}`")),
            "docs/dependencies.md does not tell of {name}"
        );
    }
}
