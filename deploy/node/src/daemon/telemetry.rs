//! The log on standard error, and traces where OpenTelemetry's standard variables say.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::{Context, Result};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::runtime::Tokio;
use opentelemetry_sdk::trace::span_processor_with_async_runtime::BatchSpanProcessor;
use opentelemetry_sdk::trace::{BatchConfigBuilder, SdkTracerProvider};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::{LogFormat, LogLevel};

/// The name under which traces come if OTEL_SERVICE_NAME gives none.
const SERVICE: &str = "coracle-node";
/// Its own words, which the level is about; of others only warnings are wanted.
const OWN: [&str; 4] = ["coracle_node", "coracle_shim", "coracle_engine", "coracle_oci"];
/// How long the last traces may take.
const FAREWELL: Duration = Duration::from_secs(3);
/// Spans that wait for a receiver that is away.
const WAITING: usize = 512;

/// How traces are sent; where to is read by the exporter, of the same variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Traces {
    /// Nobody wants any.
    Off,
    /// `http/protobuf`.
    Http,
    /// `grpc`.
    Grpc,
}

/// What is wrong with a variable.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum BadTraces {
    /// A protocol that is not spoken.
    #[error("{variable}={value:?}: use http/protobuf or grpc")]
    Protocol {
        /// The variable.
        variable: &'static str,
        /// What it says.
        value: String,
    },
    /// An address that cannot be reached.
    #[error(
        "{variable}={value:?}: use an address that begins with http://, such as that of a collector on the node"
    )]
    Endpoint {
        /// The variable.
        variable: &'static str,
        /// What it says.
        value: String,
    },
}

impl Traces {
    /// Reads the standard variables.
    ///
    /// # Errors
    /// See [`BadTraces`].
    pub(crate) fn of(env: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, BadTraces> {
        let said = |names: [&'static str; 2]| {
            names
                .into_iter()
                .find_map(|name| Some((name, env(name)?.to_string_lossy().into_owned())))
        };
        let disabled =
            env("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let endpoint = said(["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]);
        let Some((variable, value)) = endpoint.filter(|_| !disabled) else { return Ok(Self::Off) };
        if !value.starts_with("http://") {
            return Err(BadTraces::Endpoint { variable, value });
        }
        let protocol = said(["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]);
        match protocol {
            None => Ok(Self::Http),
            Some((variable, value)) => match value.as_str() {
                "http/protobuf" => Ok(Self::Http),
                "grpc" => Ok(Self::Grpc),
                _ => Err(BadTraces::Protocol { variable, value }),
            },
        }
    }

    /// Must be called within the tokio runtime.
    fn provider(self) -> Result<Option<SdkTracerProvider>> {
        let exporter = match self {
            Self::Off => return Ok(None),
            Self::Http => SpanExporter::builder().with_http().build(),
            Self::Grpc => SpanExporter::builder().with_tonic().build(),
        };
        let exporter = exporter.context("making the exporter of traces")?;
        let config = BatchConfigBuilder::default().with_max_queue_size(WAITING).build();
        let processor =
            BatchSpanProcessor::builder(exporter, Tokio).with_batch_config(config).build();
        let mut resource = Resource::builder();
        if super::env("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(SERVICE);
        }
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_resource(resource.build())
            .build();
        Ok(Some(provider))
    }
}

/// Sends the last traces when the daemon ends.
#[derive(Debug)]
pub(crate) struct Telemetry(Option<SdkTracerProvider>);

/// Sets up log and traces of this process.
///
/// # Errors
/// When there is a log already, or the exporter cannot be made.
pub(crate) fn install(format: LogFormat, level: LogLevel, traces: Traces) -> Result<Telemetry> {
    let provider = traces.provider()?;
    let traced = Targets::new().with_target(OWN[0], LevelFilter::INFO);
    let spans = provider.as_ref().map(|provider| {
        let tracer = provider.tracer(SERVICE);
        tracing_opentelemetry::layer().with_tracer(tracer).with_filter(traced)
    });
    let wanted = filter(level);
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let log = match format {
        LogFormat::Json => log.json().flatten_event(true).with_filter(wanted).boxed(),
        LogFormat::Text => {
            log.with_ansi(std::io::stderr().is_terminal()).with_filter(wanted).boxed()
        }
    };
    tracing_subscriber::registry()
        .with(spans)
        .with(log)
        .try_init()
        .context("setting up the log")?;
    Ok(Telemetry(provider))
}

fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let own = OWN.into_iter().map(|target| (target, level));
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_targets(own)
}

impl Telemetry {
    /// Sends what is left, away from the event loop, which has to carry it.
    pub(crate) async fn end(self) {
        let Some(provider) = self.0 else { return };
        let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FAREWELL));
        if let Ok(Err(error)) = ended.await {
            tracing::warn!(%error, "the last traces are lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traces(variables: &[(&str, &str)]) -> Result<Traces, BadTraces> {
        let find = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Traces::of(&find)
    }

    #[test]
    fn the_standard_variables_decide() {
        const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318");
        assert_eq!(traces(&[]), Ok(Traces::Off));
        assert_eq!(traces(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "smoke")]), Ok(Traces::Off));
        assert_eq!(traces(&[ENDPOINT]), Ok(Traces::Http));
        assert_eq!(traces(&[ENDPOINT, ("OTEL_SDK_DISABLED", "True")]), Ok(Traces::Off));
        assert_eq!(traces(&[ENDPOINT, ("OTEL_SDK_DISABLED", "false")]), Ok(Traces::Http));
        assert_eq!(traces(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]), Ok(Traces::Grpc));
        let both = [
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
        ];
        assert_eq!(traces(&both), Ok(Traces::Http), "the word about traces counts more");
        let json = traces(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")]);
        assert!(matches!(json, Err(BadTraces::Protocol { .. })), "{json:?}");
        let tls = traces(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://far:4318")]);
        assert!(matches!(tls, Err(BadTraces::Endpoint { .. })), "{tls:?}");
    }
}
