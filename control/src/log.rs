//! Log lines on stderr: for a person at a terminal, for journald, or as JSON.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, IsTerminal};
use std::panic;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{self, FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogFormat;

#[cfg(test)]
mod tests;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people: time, level, text; coloured at a terminal
    Human,
    /// One JSON object a line
    Json,
    /// For journald when it listens (it adds the time itself), else human
    Auto,
}

impl From<LogFormat> for Format {
    fn from(format: LogFormat) -> Format {
        match format {
            LogFormat::Auto => Format::Auto,
            LogFormat::Human => Format::Human,
            LogFormat::Json => Format::Json,
        }
    }
}

/// The variables that say what is logged; the first that is set counts.
const FILTER_VARIABLES: [&str; 2] = ["WEIR_LOG", "RUST_LOG"];

/// Starts logging to stderr, for the whole process: from `level` on, unless a variable says
/// otherwise.
///
/// # Errors
/// A filter variable that is set but makes no sense, named with its value.
pub(crate) fn init(format: Format, level: Level) -> anyhow::Result<()> {
    let filter = filter(level, |name| std::env::var(name).ok())?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match format {
        Format::Json => builder.json().flatten_event(true).init(),
        Format::Auto if std::env::var_os("JOURNAL_STREAM").is_some() => {
            builder.event_format(Journald).init();
        }
        Format::Human | Format::Auto => builder
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .init(),
    }
    abort_on_panic();
    Ok(())
}

fn filter(level: Level, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<EnvFilter> {
    for name in FILTER_VARIABLES {
        let Some(value) = variable(name).filter(|value| !value.is_empty()) else {
            continue;
        };
        return EnvFilter::builder().parse(&value).map_err(|e| {
            anyhow::anyhow!(
                "{name}={value:?}: {e}; write a level (info, debug ...) or target=level"
            )
        });
    }
    Ok(EnvFilter::default().add_directive(level.into()))
}

/// A panic is our bug. It is logged, with its thread, and the process dies at once: a load
/// balancer that lost a thread and goes on would be worse than its restart.
fn abort_on_panic() {
    panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let backtrace = std::backtrace::Backtrace::force_capture();
        tracing::error!(
            "thread {name}: {info}; this is a bug in weir, please report it\n{backtrace}"
        );
        std::process::abort();
    }));
}

/// Lines that journald files by priority (sd-daemon(3): `<3>` is an error), without a time.
struct Journald;

impl<S, N> FormatEvent<S, N> for Journald
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = priority(*event.metadata().level());
        write!(writer, "<{priority}>")?;
        format::format()
            .without_time()
            .with_level(false)
            .with_target(false)
            .with_ansi(false)
            .format_event(ctx, writer, event)
    }
}

fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}
