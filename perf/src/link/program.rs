//! Another DPDK program at the end of the link: how to start it, in a file or built in.
#![forbid(unsafe_code)]

use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

use super::wire::{Cores, MEMORY_MIB, Wire};
use crate::testbed::MACS;

/// A program, as a peer's file describes it (perf/peers/ has examples).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Program {
    /// Its name in tables.
    pub(crate) name: String,
    /// The command and its arguments, with placeholders ([`Program::command_line`]).
    command: Vec<String>,
    /// Whether the generator opens connections first. A program that only sends back what it
    /// gets answers no handshake.
    #[serde(default)]
    pub(crate) handshakes: bool,
    /// What to write to its stdin, which is closed then, to end it.
    #[serde(default)]
    pub(crate) quit: String,
}

impl Program {
    /// Reads a peer's file.
    ///
    /// # Errors
    /// It cannot be read, or is not such a file.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Program> {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let program: Program = toml::from_str(&text).with_context(|| file.display().to_string())?;
        anyhow::ensure!(
            !program.command.is_empty(),
            "{}: command: empty; give the program and its arguments",
            file.display()
        );
        Ok(program)
    }

    /// dpdk-testpmd, which swaps the MAC addresses and sends back: what the link gives to a
    /// program that does nearly nothing.
    pub(crate) fn testpmd() -> Program {
        let words = "dpdk-testpmd --log-level=error -l {other},{core} --main-lcore {other} --no-pci \
                     --iova-mode=va {memory} --file-prefix={prefix} --vdev={device} -- \
                     --forward-mode=macswap --nb-cores=1 --rxd=1024 --txd=1024 --burst=32 \
                     --total-num-mbufs=16384 --port-topology=loop --auto-start -i --no-mlockall \
                     --record-core-cycles";
        Program {
            name: "testpmd macswap".into(),
            command: words.split_whitespace().map(str::to_owned).collect(),
            handshakes: false,
            quit: "stop\nquit\n".into(),
        }
    }

    /// The command with its placeholders filled in:
    ///
    /// | | |
    /// |---|---|
    /// | `{device}` | the whole device string of its end of the link |
    /// | `{socket}` | memif's socket alone (the program must be the client) |
    /// | `{mac}` | the MAC address that the load is sent to |
    /// | `{prefix}` | a name for `--file-prefix` |
    /// | `{core}`, `{other}` | the CPU for its forwarding thread, and the generator's |
    /// | `{memory}` | EAL's words for memory: huge pages if there are any |
    pub(crate) fn command_line(
        &self,
        wire: &Wire,
        cores: Cores,
        huge: bool,
    ) -> anyhow::Result<Vec<String>> {
        let memory = match huge {
            true => vec!["--in-memory".to_owned()],
            false => vec!["--no-huge".to_owned()],
        };
        let memory = [memory, vec![format!("-m{MEMORY_MIB}")]].concat();
        let mac = MACS[0].0.map(|b| format!("{b:02x}")).join(":");
        let fill = |word: &String| {
            word.replace("{device}", &wire.device())
                .replace("{socket}", &wire.socket())
                .replace("{mac}", &mac)
                .replace("{prefix}", &wire.prefix("device"))
                .replace("{core}", &cores.device.to_string())
                .replace("{other}", &cores.generator.to_string())
        };
        Ok(self
            .command
            .iter()
            .flat_map(|word| match word.as_str() {
                "{memory}" => memory.clone(),
                _ => vec![fill(word)],
            })
            .collect())
    }
}
