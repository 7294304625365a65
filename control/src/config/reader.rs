//! Walks parsed TOML, remembers where everything stands, and collects what is wrong.
//!
//! A table is a [`Section`]; asking it for a key gives the typed value or adds a problem.
//! Whatever the table has beyond its known keys is a problem as soon as it is opened, so that
//! nothing is ever ignored.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::{Problem, Report};
use super::words::{alternatives, article, grouped, listed, nearest, shortened};

/// A value and the byte offset where it was written.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<T> {
    pub(super) at: usize,
    pub(super) value: T,
}

impl<T> At<T> {
    /// The same place, another value.
    pub(super) fn with<U>(&self, value: U) -> At<U> {
        At { at: self.at, value }
    }
}

/// A key that a table may have, with an example of a right value in TOML.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) example: &'static str,
    planned: bool,
}

impl Key {
    pub(super) const fn new(name: &'static str, example: &'static str) -> Key {
        let planned = false;
        Key {
            name,
            example,
            planned,
        }
    }

    /// A key of the design that this version refuses.
    pub(super) const fn planned(name: &'static str) -> Key {
        Key {
            name,
            example: "",
            planned: true,
        }
    }

    #[cfg(test)]
    pub(super) fn is_planned(&self) -> bool {
        self.planned
    }
}

/// The text and what was found wrong with it.
#[derive(Debug)]
pub(super) struct Problems<'t> {
    file: &'t str,
    text: &'t str,
    /// Where lines end.
    newlines: Vec<usize>,
    /// Lines with a syntax error.
    broken: HashSet<usize>,
    found: Vec<At<String>>,
}

impl<'t> Problems<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Problems<'t> {
        Problems {
            file,
            text,
            newlines: text.match_indices('\n').map(|(at, _)| at).collect(),
            broken: HashSet::new(),
            found: Vec::new(),
        }
    }

    /// A path that the file names: from the file's directory on.
    pub(super) fn beside(&self, path: &Path) -> PathBuf {
        match Path::new(self.file).parent() {
            Some(directory) => directory.join(path),
            None => path.to_owned(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(super) fn add(&mut self, at: usize, message: impl Into<String>) {
        self.found.push(At {
            at,
            value: message.into(),
        });
    }

    /// An error of the TOML parser. After the first of a line the parser guesses; so that one
    /// alone is reported.
    pub(super) fn syntax(&mut self, error: &toml::de::Error) {
        let at = error.span().map_or(0, |s| s.start).min(self.text.len());
        if !self.broken.insert(self.line(at)) {
            return;
        }
        let start = self.text[..at].rfind('\n').map_or(0, |n| n + 1);
        let line = self.text[start..].lines().next().unwrap_or_default().trim();
        let why = match error.message() {
            "duplicate key" if line.starts_with("[[") => {
                "there was a table of this name in single brackets; use double ones for each"
            }
            "duplicate key" if line.starts_with('[') => {
                "this table is there already; keep one, with the keys of both"
            }
            "duplicate key" => "this key is there already; keep one",
            other => other,
        };
        self.add(at, format!("not TOML: {}: {why}", shortened(line)));
    }

    /// The line, from 1, of a byte offset.
    pub(super) fn line(&self, at: usize) -> usize {
        self.newlines.partition_point(|newline| *newline < at) + 1
    }

    fn position(&self, at: usize) -> (usize, usize) {
        let start = self.text[..at].rfind('\n').map_or(0, |n| n + 1);
        (self.line(at), self.text[start..at].chars().count() + 1)
    }

    /// What was written at `span`.
    fn written(&self, span: Range<usize>) -> String {
        shortened(&self.text[span])
    }

    pub(super) fn into_report(mut self) -> Report {
        self.found.sort_by_key(|p| p.at);
        let problem = |p: &At<String>| Problem {
            position: Some(self.position(p.at)),
            message: p.value.clone(),
        };
        Report {
            file: self.file.to_owned(),
            problems: self.found.iter().map(problem).collect(),
        }
    }
}

/// A table that is being read.
#[derive(Debug)]
pub(super) struct Section<'t> {
    /// What messages call it.
    pub(super) what: String,
    /// Where it begins.
    pub(super) at: usize,
    keys: &'static [Key],
    /// `None` for a table that was not written: every key has its default.
    table: Option<&'t DeTable<'t>>,
}

type Value<'t> = Spanned<DeValue<'t>>;

impl<'t> Section<'t> {
    /// The document itself.
    pub(super) fn top(p: &mut Problems<'_>, table: &'t DeTable<'t>, keys: &'static [Key]) -> Self {
        Self::open(p, String::new(), 0, table, keys)
    }

    /// Opens a table and refuses the keys that it should not have.
    pub(super) fn open(
        p: &mut Problems<'_>,
        what: String,
        at: usize,
        table: &'t DeTable<'t>,
        keys: &'static [Key],
    ) -> Self {
        let section = Section {
            what,
            at,
            keys,
            table: Some(table),
        };
        for key in table.keys() {
            section.check_key(p, key.get_ref(), key.span().start);
        }
        section
    }

    fn check_key(&self, p: &mut Problems<'_>, written: &str, at: usize) {
        let known = self.keys.iter().find(|k| k.name == written);
        if known.is_some_and(|k| !k.planned) {
            return;
        }
        let message = if known.is_some() {
            format!("{written} is not in this version of Weir; remove it")
        } else {
            let usable = self.keys.iter().filter(|k| !k.planned).map(|k| k.name);
            let remedy = match nearest(written, self.keys.iter().map(|k| k.name)) {
                Some(name) => format!("did you mean {name:?}?"),
                None => format!("the keys here are {}", listed(usable)),
            };
            format!("unknown key {written:?}; {remedy}")
        };
        self.problem(p, at, &message);
    }

    /// Adds a problem of this table.
    pub(super) fn problem(&self, p: &mut Problems<'_>, at: usize, message: &str) {
        if self.what.is_empty() {
            p.add(at, message);
        } else {
            p.add(at, format!("{}: {message}", self.what));
        }
    }

    /// Adds that `key` must be there and is not.
    pub(super) fn missing(&self, p: &mut Problems<'_>, key: &str) {
        let example = self.example(key);
        self.problem(
            p,
            self.at,
            &format!("{key} is missing; add {key} = {example}"),
        );
    }

    fn example(&self, key: &str) -> &'static str {
        self.keys
            .iter()
            .find(|k| k.name == key)
            .map_or("", |k| k.example)
    }

    fn get(&self, key: &str) -> Option<&'t Value<'t>> {
        self.table?.get(key)
    }

    /// Whether there is no such table in the file.
    pub(super) fn is_absent(&self) -> bool {
        self.table.is_none()
    }

    /// Whether `key` was written, rightly or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Whether `key` was written as a string.
    pub(super) fn is_text(&self, key: &str) -> bool {
        self.get(key).is_some_and(|v| v.get_ref().is_str())
    }

    /// Adds what is wrong with `key`'s value, which it quotes.
    pub(super) fn wrong(&self, p: &mut Problems<'_>, key: &str, value: &Value<'_>, why: &str) {
        let written = p.written(value.span());
        self.problem(p, value.span().start, &format!("{key} = {written}: {why}"));
    }

    /// As [`Section::wrong`], of the value that `key` has.
    pub(super) fn refuse(&self, p: &mut Problems<'_>, key: &str, why: &str) {
        if let Some(value) = self.get(key) {
            self.wrong(p, key, value, why);
        }
    }

    fn wrong_type(&self, p: &mut Problems<'_>, key: &str, value: &Value<'_>, wanted: &str) {
        let is = article(value.get_ref().type_str());
        let why = format!("{is}, not {wanted}; write {key} = {}", self.example(key));
        self.wrong(p, key, value, &why);
    }

    /// A string.
    pub(super) fn text(&self, p: &mut Problems<'_>, key: &str) -> Option<At<&'t str>> {
        let value = self.get(key)?;
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong_type(p, key, value, "a string");
        }
        text.map(|value_| At {
            at: value.span().start,
            value: value_,
        })
    }

    /// A string that `parse` understands; its error says what to write instead.
    pub(super) fn parsed<T>(
        &self,
        p: &mut Problems<'_>,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<At<T>> {
        let text = self.text(p, key)?;
        match parse(text.value) {
            Ok(value) => Some(text.with(value)),
            Err(why) => {
                self.refuse(p, key, &why);
                None
            }
        }
    }

    /// One of some words. A word of `planned` is refused as not in this version.
    pub(super) fn choice<T: Copy>(
        &self,
        p: &mut Problems<'_>,
        key: &str,
        choices: &[(&str, T)],
        planned: &[&str],
    ) -> Option<At<T>> {
        self.parsed(p, key, |text| {
            if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
                return Ok(*value);
            }
            let why = if planned.contains(&text) {
                "not in this version of Weir"
            } else {
                "not known"
            };
            Err(format!(
                "{why}; use {}",
                alternatives(choices.iter().map(|(word, _)| *word))
            ))
        })
    }

    /// A whole number within `range`; `unit` follows the numbers in messages.
    pub(super) fn integer(
        &self,
        p: &mut Problems<'_>,
        key: &str,
        range: RangeInclusive<u32>,
        unit: &str,
    ) -> Option<At<u32>> {
        let value = self.get(key)?;
        let Some(number) = value.get_ref().as_integer() else {
            self.wrong_type(p, key, value, "an integer");
            return None;
        };
        let number = u32::from_str_radix(number.as_str(), number.radix());
        match number.ok().filter(|n| range.contains(n)) {
            Some(number) => Some(At {
                at: value.span().start,
                value: number,
            }),
            None => {
                let (least, most) = (grouped(*range.start()), grouped(*range.end()));
                let why = format!("out of range; use {least} to {most}{unit}");
                self.wrong(p, key, value, &why);
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, p: &mut Problems<'_>, key: &str) -> Option<At<bool>> {
        let value = self.get(key)?;
        let boolean = value.get_ref().as_bool();
        if boolean.is_none() {
            self.wrong_type(p, key, value, "true or false");
        }
        boolean.map(|b| At {
            at: value.span().start,
            value: b,
        })
    }

    /// The elements of an array, each as `element` reads it; bad ones are left out. `None` when
    /// the key is not there or is no array.
    pub(super) fn array<T>(
        &self,
        p: &mut Problems<'_>,
        key: &str,
        element: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<Vec<At<T>>> {
        let value = self.get(key)?;
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(p, key, value, "an array");
            return None;
        };
        let mut read = Vec::new();
        for value in array {
            match element(value.get_ref()) {
                Ok(element) => read.push(At {
                    at: value.span().start,
                    value: element,
                }),
                Err(why) => {
                    let written = p.written(value.span());
                    self.problem(p, value.span().start, &format!("{key}: {written}: {why}"));
                }
            }
        }
        Some(read)
    }

    /// The number of elements that the array `key` was written with, good and bad.
    pub(super) fn elements(&self, key: &str) -> usize {
        let array = self.get(key).and_then(|v| v.get_ref().as_array());
        array.map_or(0, |a| a.iter().count())
    }

    /// Refuses an array without elements; whether it did.
    pub(super) fn refused_empty(&self, p: &mut Problems<'_>, key: &str, why: &str) -> bool {
        let array = self.get(key).and_then(|v| v.get_ref().as_array());
        let empty = array.is_some() && self.elements(key) == 0;
        if empty {
            self.refuse(p, key, why);
        }
        empty
    }

    /// An array of strings that `parse` understands.
    pub(super) fn texts<T>(
        &self,
        p: &mut Problems<'_>,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<At<T>>> {
        let example = self.example(key);
        self.array(p, key, |value| match value.as_str() {
            Some(text) => parse(text),
            None => {
                let is = article(value.type_str());
                Err(format!("{is}, not a string; write {key} = {example}"))
            }
        })
    }

    /// The single table `[key]`; one without keys when it was not written.
    pub(super) fn table(
        &self,
        p: &mut Problems<'_>,
        key: &'static str,
        keys: &'static [Key],
    ) -> Section<'t> {
        let inner = !self.what.is_empty();
        let absent = Section {
            what: match inner {
                true => format!("{}: {key}", self.what),
                false => format!("[{key}]"),
            },
            at: 0,
            keys,
            table: None,
        };
        let Some(value) = self.get(key) else {
            return absent;
        };
        let at = value.span().start;
        match value.get_ref() {
            DeValue::Table(table) => Section::open(p, absent.what, at, table, keys),
            DeValue::Array(_) if !inner => {
                let why = format!("{key}: there is only one; write [{key}] with single brackets");
                self.problem(p, at, &why);
                absent
            }
            _ => {
                let why = match inner {
                    true => format!("not a table; write {key} = {}", self.example(key)),
                    false => format!("not a table; write [{key}] and its keys below"),
                };
                self.wrong(p, key, value, &why);
                absent
            }
        }
    }

    /// The tables `[[key]]`, each named by `what` from its number (from 1) and content.
    pub(super) fn tables(
        &self,
        p: &mut Problems<'_>,
        key: &'static str,
        keys: &'static [Key],
        what: impl Fn(usize, &DeTable<'_>) -> String,
    ) -> Vec<Section<'t>> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            let at = value.span().start;
            let header = self.example(key);
            let why = format!("{key}: there may be several; write {header} with double brackets");
            self.problem(p, at, &why);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (i, value) in array.iter().enumerate() {
            match value.get_ref() {
                DeValue::Table(table) => {
                    let what = what(i + 1, table);
                    sections.push(Section::open(p, what, value.span().start, table, keys));
                }
                _ => {
                    let header = self.example(key);
                    let why = format!("not a table; write {header} and its keys below");
                    self.wrong(p, key, value, &why);
                }
            }
        }
        sections
    }
}
