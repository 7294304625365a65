//! What is wrong with a file, as a person reads it.
#![forbid(unsafe_code)]

use std::fmt;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Line and column, both from 1, columns in characters; `None` when it is the whole file.
    pub position: Option<(usize, usize)>,
    /// What is wrong, the value, and what to write instead.
    pub message: String,
}

/// Everything that is wrong with one file, in the file's order. Displays as one line a
/// problem, `file:line:column: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    /// The file, as the caller named it.
    pub file: String,
    /// At least one.
    pub problems: Vec<Problem>,
}

impl Report {
    /// The file could not be read at all.
    pub(super) fn unreadable(file: &str, error: &std::io::Error) -> Report {
        let remedy = match error.kind() {
            std::io::ErrorKind::NotFound => "check the path",
            std::io::ErrorKind::PermissionDenied => "give this user the right to read it",
            _ => "name a readable TOML file",
        };
        Report {
            file: file.to_owned(),
            problems: vec![Problem {
                position: None,
                message: format!("cannot be read: {error}; {remedy}"),
            }],
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}{}:", self.file)?;
            if let Some((line, column)) = problem.position {
                write!(f, "{line}:{column}:")?;
            }
            write!(f, " {}", problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}
