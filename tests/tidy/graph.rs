//! The graph of files: which file names an item of which other file, resolved through re-exports.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::source::Source;

type Path = Vec<String>;

/// An import: the absolute path of what it names, the name it gets, and whether it is a re-export.
struct Import {
    path: Path,
    name: String,
    exported: bool,
}

/// What one file says of others.
#[derive(Default)]
struct Mentions {
    imports: Vec<Import>,
    /// Absolute paths outside of imports.
    paths: Vec<Path>,
    /// Identifiers outside of imports and of `mod` declarations.
    words: HashSet<String>,
}

/// For each file the files whose items it uses. A re-export alone is no use.
pub fn uses(sources: &[Source]) -> BTreeMap<&str, BTreeSet<&str>> {
    let files: HashMap<Path, &str> =
        sources.iter().map(|source| (source.module(), source.path.as_str())).collect();
    let mentions: HashMap<Path, Mentions> =
        sources.iter().map(|source| (source.module(), read(source, &files))).collect();
    let test_only = test_files(sources);
    let mut graph = BTreeMap::new();
    for source in sources.iter().filter(|source| !test_only.contains(&source.module())) {
        let own = &mentions[&source.module()];
        let imported = own
            .imports
            .iter()
            .filter(|import| !import.exported || own.words.contains(&import.name));
        let used = imported
            .map(|import| &import.path)
            .chain(&own.paths)
            .filter_map(|path| resolve(path, &files, &mentions, 8))
            .filter(|used| *used != source.path);
        graph.insert(source.path.as_str(), used.collect::<BTreeSet<&str>>());
    }
    graph
}

/// Groups of files that reach each other.
pub fn cycles(sources: &[Source]) -> Vec<Vec<&str>> {
    let graph = uses(sources);
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|&file| (file, reach(file, &graph))).collect();
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for (&file, to) in &reached {
        let group: Vec<&str> = to
            .iter()
            .copied()
            .filter(|other| reached.get(other).is_some_and(|back| back.contains(file)))
            .collect();
        if group.len() > 1 && seen.insert(group[0]) {
            found.push(group);
        }
    }
    found
}

fn reach<'a>(from: &'a str, graph: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(file) = open.pop() {
        for &next in graph.get(file).into_iter().flatten() {
            if found.insert(next) {
                open.push(next);
            }
        }
    }
    found
}

/// Modules whose declaration is behind `#[cfg(test)]`.
fn test_files(sources: &[Source]) -> HashSet<Path> {
    let mut found = HashSet::new();
    for source in sources {
        for item in source.text.split("#[cfg(test)]").skip(1) {
            let Some(name) = item.trim_start().strip_prefix("mod ") else { continue };
            let Some((name, _)) = name.split_once(';') else { continue };
            found.insert([source.module(), vec![name.to_owned()]].concat());
        }
    }
    found
}

fn read(source: &Source, files: &HashMap<Path, &str>) -> Mentions {
    let module = source.module();
    let tokens = source.tokens();
    let mut mentions = Mentions::default();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at] == "use" {
            let exported = at > 0 && (tokens[at - 1] == "pub" || tokens[at - 1] == ")");
            at += 1;
            let mut import = |path: &[&str], name: &str| {
                if let Some(path) = absolute(path, &module, files) {
                    mentions.imports.push(Import { path, name: name.to_owned(), exported });
                }
            };
            tree(&tokens, &mut at, &mut Vec::new(), &mut import);
        } else if tokens[at] == "mod" {
            at += 2;
        } else if tokens.get(at + 1) == Some(&"::") && (at == 0 || tokens[at - 1] != "::") {
            let mut path = vec![tokens[at]];
            while tokens.get(at + 1) == Some(&"::")
                && tokens.get(at + 2).is_some_and(|t| is_name(t))
            {
                path.push(tokens[at + 2]);
                at += 2;
            }
            mentions.words.insert(path[0].to_owned());
            mentions.paths.extend(absolute(&path, &module, files));
            at += 1;
        } else {
            mentions.words.insert(tokens[at].to_owned());
            at += 1;
        }
    }
    mentions
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// One level of a `use` tree; calls `import` with each path and the name that it brings in.
fn tree<'a>(
    tokens: &[&'a str],
    at: &mut usize,
    prefix: &mut Vec<&'a str>,
    import: &mut impl FnMut(&[&str], &str),
) {
    let depth = prefix.len();
    let mut named = true;
    while let Some(&token) = tokens.get(*at) {
        *at += 1;
        match token {
            "::" => {}
            "{" => {
                named = false;
                loop {
                    tree(tokens, at, prefix, import);
                    if tokens.get(*at - 1) != Some(&",") {
                        break;
                    }
                }
            }
            "as" => {
                import(prefix, tokens[*at]);
                prefix.truncate(depth);
                *at += 1;
            }
            "," | "}" | ";" => {
                if named && prefix.len() > depth {
                    import(prefix, prefix[prefix.len() - 1]);
                }
                prefix.truncate(depth);
                return;
            }
            // `{self, …}` names the prefix itself.
            "self" if depth > 0 => import(prefix, prefix[depth - 1]),
            name => prefix.push(name),
        }
    }
}

/// A path from the crate's root; `None` if it leads out of the crate.
fn absolute(path: &[&str], module: &[String], files: &HashMap<Path, &str>) -> Option<Path> {
    let supers = path.iter().take_while(|part| **part == "super").count();
    let (base, rest) = match path[0] {
        "crate" => (&[][..], &path[1..]),
        "self" => (module, &path[1..]),
        "super" => (&module[..module.len().checked_sub(supers)?], &path[supers..]),
        child => {
            let below = [module, &[child.to_owned()]].concat();
            if !files.contains_key(&below) {
                return None;
            }
            (module, path)
        }
    };
    Some(base.iter().cloned().chain(rest.iter().map(|&part| part.to_owned())).collect())
}

/// The file that holds what `path` names.
fn resolve<'a>(
    path: &[String],
    files: &HashMap<Path, &'a str>,
    mentions: &HashMap<Path, Mentions>,
    depth: u32,
) -> Option<&'a str> {
    let length = (0..=path.len()).rev().find(|&length| files.contains_key(&path[..length]))?;
    let (module, rest) = path.split_at(length);
    let through = rest.first().filter(|_| depth > 0).and_then(|name| {
        let imports = &mentions.get(module)?.imports;
        let import = imports.iter().find(|import| import.name == *name)?;
        resolve(&import.path, files, mentions, depth - 1)
    });
    // `lib.rs` and `main.rs` hold nothing that others use.
    through.or_else(|| (!module.is_empty()).then(|| files[module]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph_of(files: &[(&str, &str)]) -> Vec<Source> {
        files.iter().map(|(path, text)| Source::new(path, text)).collect()
    }

    fn used(files: &[(&str, &str)], by: &str) -> Vec<String> {
        uses(&graph_of(files))[by].iter().map(|&file| file.to_owned()).collect()
    }

    #[test]
    fn imports_and_paths_lead_to_the_file_that_defines_the_item() {
        let files = [
            (
                "src/a.rs",
                "pub mod one; mod two; mod deep; pub use one::{One, other as Renamed};\nfn f() {}",
            ),
            ("src/a/one.rs", "pub struct One;"),
            ("src/a/two.rs", "use super::{One, deep::{self, D}};\nfn g() { super::f() }"),
            ("src/a/deep.rs", "pub struct D;"),
            ("src/b.rs", "fn h() { crate::a::Renamed::new(); std::fs::read(); }"),
            ("src/b/c.rs", "use super::super::a::one::One;"),
        ];
        assert_eq!(used(&files, "src/a.rs"), [""; 0], "a re-export alone is no use");
        assert_eq!(used(&files, "src/a/two.rs"), ["src/a.rs", "src/a/deep.rs", "src/a/one.rs"]);
        assert_eq!(used(&files, "src/b.rs"), ["src/a/one.rs"]);
        assert_eq!(used(&files, "src/b/c.rs"), ["src/a/one.rs"]);
    }

    #[test]
    fn a_cycle_is_found_and_a_test_module_closes_none() {
        let (x, y) =
            (("src/m/x.rs", "use super::y::Y; pub struct X;"), ("src/m/y.rs", "pub struct Y;"));
        let facade = ("src/m.rs", "mod x; mod y; pub use x::X;");
        let test = "pub struct Y;\n#[cfg(test)]\nmod tests { use super::super::x::X; }";
        assert!(cycles(&graph_of(&[facade, x, y])).is_empty());
        assert!(cycles(&graph_of(&[facade, x, ("src/m/y.rs", test)])).is_empty());
        let back = ("src/m/y.rs", "pub struct Y; impl Y { fn x() -> super::X { super::X } }");
        assert_eq!(cycles(&graph_of(&[facade, x, back])), [["src/m/x.rs", "src/m/y.rs"]]);
        let parent = ("src/m.rs", "mod x; mod y; fn f() { x::g() } pub struct P;");
        let child = ("src/m/x.rs", "use crate::m::P; pub fn g() {}");
        assert_eq!(cycles(&graph_of(&[parent, child, y])), [["src/m.rs", "src/m/x.rs"]]);
    }
}
