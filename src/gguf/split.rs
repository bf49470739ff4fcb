//! Models in several files, `NAME-00001-of-0000N.gguf`, as llama.cpp's `gguf-split` writes them: the first part has all
//! the metadata, every part has some of the tensors, and `split.*` says which part it is.

use std::path::{Path, PathBuf};

use super::metadata::Metadata;
use crate::error::{Error, Result};

/// All files of the model that `name` is (a part of): `m-00002-of-00003.gguf` gives three names.
pub fn part_names(name: &str) -> Vec<String> {
    let Some((prefix, count)) = split_name(name) else {
        return vec![name.to_owned()];
    };
    (1..=count)
        .map(|i| format!("{prefix}-{i:05}-of-{count:05}.gguf"))
        .collect()
}

/// The prefix and the count of a split file's name.
fn split_name(name: &str) -> Option<(&str, u32)> {
    let stem = name.strip_suffix(".gguf")?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (prefix, index) = rest.rsplit_once('-')?;
    let number = |digits: &str| {
        let five = digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit());
        five.then(|| digits.parse::<u32>().ok()).flatten()
    };
    let (index, count) = (number(index)?, number(count)?);
    (index >= 1 && index <= count).then_some((prefix, count))
}

/// The files of the model that `path`, whose metadata this is, is a part of: one, or all parts in order.
///
/// # Errors
/// `ModelFormat` where the name and the metadata do not say the same.
pub(super) fn parts(path: &Path, metadata: &Metadata) -> Result<Vec<PathBuf>> {
    let count = metadata.u32("split.count")?.unwrap_or(1);
    if count <= 1 {
        return Ok(vec![path.to_path_buf()]);
    }
    let no = number(metadata, "split.no")?;
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
    let names = part_names(name);
    if names.len() != count as usize || names.get(no as usize).is_none_or(|own| own != name) {
        return Err(Error::ModelFormat(format!(
            "this is part {} of {count} of a split model, so its name must end in `-{:05}-of-{count:05}.gguf`, and the \
             other parts must lie beside it",
            u64::from(no) + 1,
            u64::from(no) + 1
        )));
    }
    Ok(names.iter().map(|name| path.with_file_name(name)).collect())
}

/// Checks a further part, number `no` (from 0) of `count`, against the first one.
pub(super) fn check_part(first: &Metadata, part: &Metadata, no: usize, count: usize) -> Result<()> {
    for (key, expected) in [("split.no", no), ("split.count", count)] {
        let found = number(part, key)?;
        if found as usize != expected {
            return Err(Error::ModelFormat(format!(
                "metadata key `{key}` is {found}, expected {expected}: this part belongs to another model"
            )));
        }
    }
    // What a later part says of the model is said in the first one, or would go unread.
    match part.iter().find(|(key, value)| {
        let free = ["split.", "general."].iter().any(|p| key.starts_with(p));
        !free && first.get(key) != Some(value)
    }) {
        Some((key, _)) => Err(Error::ModelFormat(format!(
            "metadata key `{key}` differs from the first part's: this part belongs to another model"
        ))),
        None => Ok(()),
    }
}

/// Checks that all tensors that the first part announces were found.
pub(super) fn check_total(first: &Metadata, found: usize) -> Result<()> {
    match first.u32("split.tensors.count")? {
        Some(expected) if expected as usize != found => Err(Error::ModelFormat(format!(
            "the parts have {found} tensors together, and `split.tensors.count` is {expected}: a part belongs to \
             another model"
        ))),
        _ => Ok(()),
    }
}

fn number(metadata: &Metadata, key: &str) -> Result<u32> {
    metadata
        .u32(key)?
        .ok_or_else(|| Error::ModelFormat(format!("metadata key `{key}` is missing")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Value;

    #[test]
    fn names_of_parts() {
        for (name, first, n) in [
            ("d/m-00002-of-00003.gguf", "d/m-00001-of-00003.gguf", 3),
            ("m.gguf", "m.gguf", 1),
            ("m-2-of-3.gguf", "m-2-of-3.gguf", 1),
            ("m-00004-of-00003.gguf", "m-00004-of-00003.gguf", 1),
            ("m-00000-of-00003.gguf", "m-00000-of-00003.gguf", 1),
        ] {
            let names = part_names(name);
            assert_eq!((names[0].as_str(), names.len()), (first, n), "{name}");
        }
    }

    #[test]
    fn names_and_metadata_say_the_same() {
        let metadata = |no: i128, count: i128| {
            let mut metadata = Metadata::default();
            for (key, value) in [("split.no", no), ("split.count", count)] {
                metadata
                    .insert(key.into(), Value::Int(value))
                    .expect("two keys");
            }
            metadata
        };
        let two = parts(Path::new("d/m-00002-of-00002.gguf"), &metadata(1, 2)).expect("as named");
        assert_eq!(
            two,
            ["d/m-00001-of-00002.gguf", "d/m-00002-of-00002.gguf"].map(PathBuf::from)
        );
        for (name, no, count) in [
            ("m.gguf", 0, 2),
            ("m-00001-of-00002.gguf", 1, 2),
            ("m-00001-of-00003.gguf", 0, 2),
            ("m-00001-of-00002.gguf", 7, 2),
        ] {
            assert!(
                parts(Path::new(name), &metadata(no, count)).is_err(),
                "{name}"
            );
        }
        assert_eq!(
            parts(Path::new("m.gguf"), &metadata(0, 1))
                .expect("one")
                .len(),
            1
        );
    }
}
