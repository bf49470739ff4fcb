//! What a user calls a model on the hub, and which of a repository's files it is.

use crate::error::{Error, Result, bytes};
pub(super) use crate::gguf::part_names as parts;

/// A repository, and the quantization named after it (`owner/name:Q5_K_M`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoId {
    /// `owner/name`.
    pub id: String,
    /// The quantization wanted.
    pub quantization: Option<String>,
}

/// A file of a repository: its path there and its size, where that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) size: Option<u64>,
}

impl RepoId {
    /// Splits and checks `text`; what it accepts is safe to put into a path and a URL.
    pub fn parse(text: &str) -> Result<Self> {
        let (id, quantization) = match text.split_once(':') {
            Some((id, q)) => (id, Some(q)),
            None => (text, None),
        };
        let part = |p: &str| {
            !p.is_empty()
                && p.len() <= 96
                && !p.starts_with(['.', '-'])
                && !p.ends_with(['.', '-'])
                && !p.contains("..")
                && !p.contains("--")
                && p.chars()
                    .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        let valid = id
            .split_once('/')
            .is_some_and(|(owner, name)| part(owner) && part(name));
        if !valid || quantization == Some("") {
            return Err(Error::InvalidRequest(format!(
                "{text:?} is not the name of a repository, expected \"owner/name\" or \"owner/name:Q4_K_M\""
            )));
        }
        Ok(Self {
            id: id.to_owned(),
            quantization: quantization.map(str::to_owned),
        })
    }
}

/// Checks that `name` stays inside a repository.
pub(super) fn check_filename(name: &str) -> Result<()> {
    let safe = |part: &str| !part.is_empty() && part != "." && part != "..";
    if name.split('/').all(safe) && !name.contains(['\\', '\0', ':']) {
        return Ok(());
    }
    Err(Error::InvalidRequest(format!(
        "filename is {name:?}, expected the path of a file in the repository, such as \"model-Q4_K_M.gguf\""
    )))
}

/// Checks that `revision` can be part of a path and a URL.
pub(super) fn check_revision(revision: &str) -> Result<()> {
    let safe = |part: &str| !part.is_empty() && part != "." && part != "..";
    let legal = |c: char| !c.is_control() && !" ~^:?*[\\".contains(c);
    if revision.split('/').all(safe) && revision.chars().all(legal) {
        return Ok(());
    }
    Err(Error::InvalidRequest(format!(
        "revision is {revision:?}, expected a branch, a tag or a commit of 40 hexadecimal digits"
    )))
}

/// Whether `revision` is a whole commit hash, which never comes to mean something else.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40
        && revision
            .bytes()
            .all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
}

/// The models among `files`: a split one is its first part with the size of all of them.
pub(super) fn models(files: &[Listed]) -> Vec<Listed> {
    let mut models: Vec<Listed> = Vec::new();
    for file in files
        .iter()
        .filter(|f| f.name.to_ascii_lowercase().ends_with(".gguf"))
    {
        let first = parts(&file.name).swap_remove(0);
        match models.iter_mut().find(|m| m.name == first) {
            Some(model) => model.size = model.size.zip(file.size).map(|(a, b)| a + b),
            None => models.push(Listed {
                name: first,
                size: file.size,
            }),
        }
    }
    models.sort_by(|a, b| a.name.cmp(&b.name));
    models
}

/// Whether `name` has `quantization` as a whole word: `Q4_K` is not in `m-Q4_K_M.gguf`.
fn has_quantization(name: &str, quantization: &str) -> bool {
    let (name, wanted) = (name.to_ascii_lowercase(), quantization.to_ascii_lowercase());
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.match_indices(&wanted).any(|(at, _)| {
        let before = name[..at].chars().next_back();
        let after = name[at + wanted.len()..].chars().next();
        !before.is_some_and(|c| c.is_ascii_alphanumeric()) && !after.is_some_and(word)
    })
}

/// The file that is meant when none is named: Q4_K_M, else the one with `q4` in its name, else the only one.
///
/// `place` is where the files are, for the error that lists them.
pub(super) fn choose(files: &[Listed], quantization: Option<&str>, place: &str) -> Result<String> {
    let models = models(files);
    let only = |candidates: Vec<&Listed>| match candidates[..] {
        [one] => Some(one.name.clone()),
        _ => None,
    };
    if models.is_empty() {
        let others: Vec<_> = files.iter().take(20).map(|f| f.name.as_str()).collect();
        let found = if others.is_empty() {
            "no files".to_owned()
        } else {
            others.join(", ")
        };
        return Err(Error::ModelNotFound(format!(
            "no .gguf file in {place} (found {found}): expected a repository with GGUF files, whose name often ends \
             in -gguf"
        )));
    }
    let all = models.iter().collect::<Vec<_>>();
    let named = |word: &str| -> Vec<&Listed> {
        models
            .iter()
            .filter(|m| m.name.to_ascii_lowercase().contains(word))
            .collect()
    };
    let (found, problem) = match quantization {
        Some(q) => {
            let matching: Vec<_> = models
                .iter()
                .filter(|m| has_quantization(&m.name, q))
                .collect();
            let problem = if matching.is_empty() {
                "no file of"
            } else {
                "several files of"
            };
            (
                only(matching),
                format!("{problem} quantization {q:?} in {place}"),
            )
        }
        None => (
            only(all)
                .or_else(|| only(named("q4_k_m")))
                .or_else(|| only(named("q4"))),
            format!("several models in {place}"),
        ),
    };
    found.ok_or_else(|| {
        Error::ModelNotFound(format!(
            "{problem}: choose one with filename=, or with \"owner/name:QUANTIZATION\"{}",
            listing(&models)
        ))
    })
}

/// The GGUF files of a repository with their sizes, a line each; empty when there are none.
pub(super) fn listing(files: &[Listed]) -> String {
    models(files)
        .iter()
        .map(|m| match m.size {
            Some(size) => format!("\n  {}  ({})", m.name, bytes(size)),
            None => format!("\n  {}", m.name),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<Listed> {
        names
            .iter()
            .map(|n| Listed {
                name: (*n).to_owned(),
                size: Some(1_000_000),
            })
            .collect()
    }

    #[test]
    fn ids_are_checked_before_they_reach_a_path() {
        for (text, id, quantization) in [
            (
                "microsoft/Phi-3-mini-4k-instruct-gguf",
                "microsoft/Phi-3-mini-4k-instruct-gguf",
                None,
            ),
            ("a/b:Q5_K_M", "a/b", Some("Q5_K_M")),
        ] {
            let repo = RepoId::parse(text).expect("a valid name");
            assert_eq!(
                (repo.id.as_str(), repo.quantization.as_deref()),
                (id, quantization)
            );
        }
        for text in [
            "gpt2", "a/b/c", "/b", "a/", "../b", "a/..", "a/b:", "a b/c", "a/b--c", "a/é", "a/b\0",
        ] {
            let error = RepoId::parse(text).expect_err(text).to_string();
            assert!(error.contains("owner/name"), "{error}");
        }
    }

    #[test]
    fn names_and_revisions_cannot_leave_their_folder() {
        for name in [
            "", "..", "../x", "a//b", "/x", "a/../b", "a\\b", "C:x", "x\0",
        ] {
            assert!(check_filename(name).is_err(), "{name:?}");
        }
        for revision in ["", "..", "a/..", "/a", "a b", "a\nb", "a:b"] {
            assert!(check_revision(revision).is_err(), "{revision:?}");
        }
        check_filename("Q4_K_M/m-00001-of-00002.gguf").expect("a folder is fine");
        check_revision("refs/pr/12").expect("a pull request is fine");
    }

    #[test]
    fn choice_by_the_rule() {
        let one = |names: &[&str], q: Option<&str>| choose(&files(names), q, "`a/b`");
        for (names, quantization, expected) in [
            (&["README.md", "m.gguf"][..], None, "m.gguf"),
            (
                &["m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-Q4_0.gguf"],
                None,
                "m-Q4_K_M.gguf",
            ),
            (&["m-fp16.gguf", "m-q4.gguf"], None, "m-q4.gguf"),
            (
                &["m-Q4_K_M.gguf", "m-Q5_K_M.gguf"],
                Some("q5_k_m"),
                "m-Q5_K_M.gguf",
            ),
            (
                &["m-Q4_K_M.gguf", "m.Q4_K.gguf"],
                Some("Q4_K"),
                "m.Q4_K.gguf",
            ),
            (
                &[
                    "Q8_0/m-00001-of-00002.gguf",
                    "Q8_0/m-00002-of-00002.gguf",
                    "m-f16.gguf",
                ],
                Some("Q8_0"),
                "Q8_0/m-00001-of-00002.gguf",
            ),
            (
                &["m-00002-of-00002.gguf", "m-00001-of-00002.gguf"],
                None,
                "m-00001-of-00002.gguf",
            ),
        ] {
            assert_eq!(
                one(names, quantization).expect("a choice"),
                expected,
                "{names:?}"
            );
        }
        for (names, quantization, part) in [
            (
                &["m-Q4_0.gguf", "m-Q4_1.gguf"][..],
                None,
                "m-Q4_1.gguf  (1.00 MB)",
            ),
            (
                &["m-Q8_0.gguf", "m-f16.gguf"],
                None,
                "several models in `a/b`",
            ),
            (
                &["m-Q4_K_M.gguf"],
                Some("Q6_K"),
                "no file of quantization \"Q6_K\"",
            ),
            (
                &["a-Q6_K.gguf", "b-Q6_K.gguf"],
                Some("Q6_K"),
                "several files of",
            ),
            (&["README.md"], None, "found README.md"),
            (&[], None, "no .gguf file"),
        ] {
            let error = one(names, quantization).expect_err("no choice").to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn split_files_belong_together() {
        assert_eq!(parts("d/m-00002-of-00003.gguf").len(), 3);
        assert_eq!(
            parts("d/m-00002-of-00003.gguf")[0],
            "d/m-00001-of-00003.gguf"
        );
        for whole in [
            "m.gguf",
            "m-00004-of-00003.gguf",
            "m-00000-of-00003.gguf",
            "m-1-of-3.gguf",
            "m-00001-of-00002.bin",
        ] {
            assert_eq!(parts(whole), [whole]);
        }
        let listed = listing(&files(&[
            "m-00001-of-00002.gguf",
            "m-00002-of-00002.gguf",
            "x.txt",
        ]));
        assert_eq!(listed, "\n  m-00001-of-00002.gguf  (2.00 MB)");
    }
}
