//! A child process that is talked with by lines; it is killed and waited for when dropped.
#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;

/// How long a process may be silent before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// The child.
pub(super) struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
    /// What it said lately, for error texts.
    said: Vec<String>,
}

impl Process {
    pub(super) fn start(name: &str, command: &mut Command) -> anyhow::Result<Process> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{name}: {}", command.get_program().to_string_lossy()))?;
        let (send, lines) = channel();
        let stdout = child
            .stdout
            .take()
            .map(|o| Box::new(o) as Box<dyn Read + Send>);
        let stderr = child
            .stderr
            .take()
            .map(|o| Box::new(o) as Box<dyn Read + Send>);
        for stream in [stdout, stderr].into_iter().flatten() {
            let send = send.clone();
            // Ends with the child's stream.
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if send.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Process {
            name: name.to_owned(),
            child,
            lines,
            said: Vec::new(),
        })
    }

    pub(super) fn write(&mut self, text: &str) -> anyhow::Result<()> {
        let stdin = self.child.stdin.as_mut().context("stdin is closed")?;
        stdin
            .write_all(text.as_bytes())
            .and_then(|()| stdin.flush())
            .with_context(|| format!("{} does not read", self.name))
    }

    fn line(&mut self) -> anyhow::Result<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => {
                bail!("{}: nothing for {} s", self.name, PATIENCE.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait()?;
                bail!("{} ended early: {status}", self.name)
            }
        }
    }

    /// The next line, as JSON.
    pub(super) fn reads<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("{} said: {line}", self.name))
    }

    /// Says `farewell`, closes its stdin and waits for it to end.
    pub(super) fn end(&mut self, farewell: &str) -> anyhow::Result<()> {
        let _ = self.write(farewell);
        drop(self.child.stdin.take());
        let start = Instant::now();
        while self.child.try_wait()?.is_none() {
            anyhow::ensure!(
                start.elapsed() < Duration::from_secs(20),
                "{} does not end",
                self.name
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// The rest of what it said.
    pub(super) fn last_words(&mut self) -> String {
        self.said.extend(self.lines.try_iter());
        let from = self.said.len().saturating_sub(12);
        self.said[from..].join(" | ")
    }

    /// What testpmd calls "CPU cycles/packet", of all its packets.
    pub(super) fn cycles_said(&mut self) -> Option<f64> {
        self.said.extend(self.lines.iter());
        let line = self
            .said
            .iter()
            .rev()
            .find(|l| l.contains("CPU cycles/packet="))?;
        let value = line.split("CPU cycles/packet=").nth(1)?;
        value.split_whitespace().next()?.parse().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
