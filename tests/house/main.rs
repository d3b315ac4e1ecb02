//! The house rules, read off the sources: floors, purity, the map, opening lines, file lengths.
//!
//! Uses std alone, so that it stays right whatever the crate depends on. `source.rs` takes
//! comments and texts out of a file; `rules.rs` judges what is left.

mod dependencies;
mod rules;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use rules::{FLOORS, complaints, room_of};

/// Every `.rs` file under `folder`.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the sources are there") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn the_house_keeps_its_rules() {
    let mut files = Vec::new();
    sources(&src(), &mut files);
    files.sort();
    assert!(files.len() > 10, "the sources were not found");
    let mut all = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).expect("sources are UTF-8");
        let name =
            path.strip_prefix(src()).expect("it is below src").to_string_lossy().into_owned();
        all.extend(complaints(&name, &text));
    }
    assert!(all.is_empty(), "\n{}\n", all.join("\n"));
}

#[test]
fn every_room_is_on_the_map_and_on_a_floor() {
    let map = fs::read_to_string(src().join("lib.rs")).expect("the root");
    let mut rooms: Vec<String> = fs::read_dir(src())
        .expect("the sources")
        .map(|entry| entry.expect("a readable folder").file_name().to_string_lossy().into_owned())
        .filter(|name| !name.ends_with(".rs") && name != "main")
        .collect();
    rooms.sort();
    let known = FLOORS.iter().filter(|floor| floor.room != "main");
    let mut floors: Vec<&str> = known.map(|floor| floor.room).collect();
    floors.sort_unstable();
    assert_eq!(rooms, floors, "the folders of src are the rooms of tests/house/rules.rs");
    for room in rooms {
        let listed = map.contains(&format!("pub mod {room};"));
        // What is only there for tests has no page to link to.
        let tests_only = map.contains(&format!("#[cfg(test)]\nmod {room};"));
        assert!(listed || tests_only, "lib.rs does not list {room}");
        let shown = if listed { format!("[`{room}`]") } else { format!("`{room}`") };
        assert!(map.contains(&shown), "the map in lib.rs does not show {room}");
        assert_eq!(room_of(&format!("{room}/mod.rs")), Some(room.as_str()));
    }
}
