use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;

use super::*;

#[test]
fn the_first_variable_that_is_set_counts() {
    let with = |values: &[(&str, &str)]| {
        let found = |name: &str| {
            let value = values.iter().find(|(variable, _)| *variable == name);
            value.map(|(_, value)| (*value).to_owned())
        };
        filter(Level::WARN, found).map(|filter| filter.to_string())
    };
    assert_eq!(with(&[]).unwrap(), "warn");
    assert_eq!(with(&[("RUST_LOG", "debug")]).unwrap(), "debug");
    assert_eq!(
        with(&[("WEIR_LOG", ""), ("RUST_LOG", "error")]).unwrap(),
        "error"
    );
    let both = [("WEIR_LOG", "weir::net=trace"), ("RUST_LOG", "debug")];
    assert_eq!(with(&both).unwrap(), "weir::net=trace");
    let error = with(&[("WEIR_LOG", "weir=loud")]).unwrap_err().to_string();
    assert!(error.starts_with("WEIR_LOG=\"weir=loud\": "), "{error}");
    assert!(
        error.ends_with("; write a level (info, debug ...) or target=level"),
        "{error}"
    );
}

/// A writer that remembers.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        self.clone()
    }
}

#[test]
fn journald_gets_priorities_and_no_time() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_writer(lines.clone())
        .event_format(Journald)
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        tracing::error!("broken");
        tracing::warn!(port = "wan0", "odd");
        tracing::info!("fine");
        tracing::debug!("detail");
    });
    let bytes = lines.0.lock().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&bytes),
        "<3>broken\n<4>odd port=\"wan0\"\n<6>fine\n<7>detail\n"
    );
}

/// Set in the process that is to panic.
const VICTIM: &str = "WEIR_TEST_PANIC";

#[test]
fn a_panic_on_any_thread_ends_the_process_loudly() {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    if std::env::var_os(VICTIM).is_some() {
        init(Format::Json, Level::INFO).unwrap();
        let worker = std::thread::Builder::new().name("weir-w3".to_owned());
        let panic = worker.spawn(|| panic!("a bug in a worker")).unwrap();
        let _ = panic.join();
        return; // too late: the test below sees that the process lived on
    }
    let name = "log::tests::a_panic_on_any_thread_ends_the_process_loudly";
    let victim = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(VICTIM, "1")
        .env_remove("WEIR_LOG")
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    const SIGABRT: i32 = 6;
    assert_eq!(victim.status.signal(), Some(SIGABRT));
    let stderr = String::from_utf8_lossy(&victim.stderr);
    let line = stderr.lines().find(|line| line.starts_with('{')).unwrap();
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(event["level"], "ERROR");
    let message = event["message"].as_str().unwrap();
    assert!(
        message.starts_with("thread weir-w3: panicked at "),
        "{message}"
    );
    assert!(message.contains("a bug in a worker"), "{message}");
}
