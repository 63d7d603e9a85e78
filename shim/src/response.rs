//! Domain to wire: answers, events, and the one place where an error becomes a status code.

use std::time::SystemTime;

use containerd_shim_protos::api;
use containerd_shim_protos::events::task::{TaskCreate, TaskDelete, TaskExit, TaskIO, TaskStart};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::ttrpc::{self, Code};
use containerd_shim_protos::types::{mount::Mount, task::ProcessInfo};
use coracle_oci::ImageError;

use crate::exit::ExitStatus;
use crate::guest::GuestError;
use crate::request::{RequestError, RootfsMount};
use crate::task::{Facts, Snapshot, Status, TaskError};

/// The status code of an error. containerd and Docker act on the code and show the message.
fn code(error: &TaskError) -> Code {
    match error {
        TaskError::NotFound(_) | TaskError::Finished(_) => Code::NOT_FOUND,
        TaskError::AlreadyExists(_) => Code::ALREADY_EXISTS,
        TaskError::Refused { .. } | TaskError::EndedBeforeStart(_) | TaskError::ShuttingDown => {
            Code::FAILED_PRECONDITION
        }
        TaskError::Unsupported(_) => Code::UNIMPLEMENTED,
        TaskError::Request(RequestError::Unsupported(_)) => Code::UNIMPLEMENTED,
        TaskError::Request(RequestError::NoSuchExec { .. }) => Code::NOT_FOUND,
        TaskError::Request(_)
        | TaskError::Config(_)
        | TaskError::Spec(_)
        | TaskError::NoModule { .. }
        | TaskError::Stdio(_)
        | TaskError::Guest(GuestError::Spec { .. } | GuestError::Refused(_)) => {
            Code::INVALID_ARGUMENT
        }
        TaskError::Image(ImageError::Read { .. } | ImageError::Rootfs { .. }) => Code::INTERNAL,
        TaskError::Image(_) => Code::INVALID_ARGUMENT,
        TaskError::Compile(crate::compile::CompileError::Rejected { .. }) => Code::INVALID_ARGUMENT,
        TaskError::Mount(_)
        | TaskError::Compile(_)
        | TaskError::Guest(_)
        | TaskError::Broken(_) => Code::INTERNAL,
    }
}

impl From<TaskError> for ttrpc::Error {
    fn from(error: TaskError) -> Self {
        ttrpc::Error::RpcStatus(ttrpc::get_status(code(&error), error))
    }
}

/// Answers State.
pub fn state(facts: &Facts, snapshot: Snapshot) -> api::StateResponse {
    let [stdin, stdout, stderr] = facts.streams.clone();
    let status = match snapshot.status {
        Status::Created => api::Status::CREATED,
        Status::Running => api::Status::RUNNING,
        Status::Stopped => api::Status::STOPPED,
    };
    api::StateResponse {
        id: facts.id.to_string(),
        bundle: facts.bundle.to_string_lossy().into_owned(),
        pid: facts.pid,
        status: status.into(),
        stdin,
        stdout,
        stderr,
        exit_status: snapshot.exit.map_or(0, |exit| exit.code),
        exited_at: snapshot.exit.map(|exit| timestamp(exit.at)).into(),
        ..Default::default()
    }
}

/// Answers Delete.
pub fn deleted(pid: u32, exit: ExitStatus) -> api::DeleteResponse {
    api::DeleteResponse { pid, exit_status: exit.code, exited_at: at(exit), ..Default::default() }
}

/// Answers Wait.
pub fn waited(exit: ExitStatus) -> api::WaitResponse {
    api::WaitResponse { exit_status: exit.code, exited_at: at(exit), ..Default::default() }
}

/// Answers Pids.
pub fn pids(pids: Vec<u32>) -> api::PidsResponse {
    let process = |pid| ProcessInfo { pid, ..Default::default() };
    api::PidsResponse { processes: pids.into_iter().map(process).collect(), ..Default::default() }
}

/// The first event of a task.
pub fn create_event(facts: &Facts, mounts: &[RootfsMount]) -> TaskCreate {
    let [stdin, stdout, stderr] = facts.streams.clone();
    let mount = |mount: &RootfsMount| Mount {
        type_: mount.kind.clone(),
        source: mount.source.clone(),
        options: mount.options.clone(),
        ..Default::default()
    };
    TaskCreate {
        container_id: facts.id.to_string(),
        bundle: facts.bundle.to_string_lossy().into_owned(),
        rootfs: mounts.iter().map(mount).collect(),
        io: MessageField::some(TaskIO { stdin, stdout, stderr, ..Default::default() }),
        pid: facts.pid,
        ..Default::default()
    }
}

/// The program runs.
pub fn start_event(facts: &Facts) -> TaskStart {
    TaskStart { container_id: facts.id.to_string(), pid: facts.pid, ..Default::default() }
}

/// The task's first process ended; `id` names that process, which is called like the container.
pub fn exit_event(facts: &Facts, exit: ExitStatus) -> TaskExit {
    TaskExit {
        container_id: facts.id.to_string(),
        id: facts.id.to_string(),
        pid: facts.pid,
        exit_status: exit.code,
        exited_at: at(exit),
        ..Default::default()
    }
}

/// The last event of a task.
pub fn delete_event(facts: &Facts, exit: ExitStatus) -> TaskDelete {
    TaskDelete {
        container_id: facts.id.to_string(),
        pid: facts.pid,
        exit_status: exit.code,
        exited_at: at(exit),
        ..Default::default()
    }
}

fn at(exit: ExitStatus) -> MessageField<Timestamp> {
    MessageField::some(timestamp(exit.at))
}

/// Seconds and nanoseconds since 1970.
fn timestamp(time: SystemTime) -> Timestamp {
    // A clock before 1970 is broken; zero is as good an answer as any.
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: since.subsec_nanos().cast_signed(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{self, TaskId};
    use std::time::Duration;

    fn facts() -> Facts {
        Facts {
            id: TaskId::parse("c").unwrap(),
            bundle: "/b".into(),
            pid: 7,
            streams: ["i".into(), "o".into(), "e".into()],
        }
    }

    #[test]
    fn every_refusal_has_its_code() {
        let id = || TaskId::parse("c").unwrap();
        let refused = TaskError::Refused { id: id(), act: "start", status: "running" };
        for (error, want) in [
            (TaskError::NotFound(id()), Code::NOT_FOUND),
            (TaskError::Finished(id()), Code::NOT_FOUND),
            (TaskError::AlreadyExists(id()), Code::ALREADY_EXISTS),
            (refused, Code::FAILED_PRECONDITION),
            (TaskError::Unsupported("x"), Code::UNIMPLEMENTED),
            (RequestError::Unsupported(request::NO_TERMINAL).into(), Code::UNIMPLEMENTED),
            (RequestError::Signal(99).into(), Code::INVALID_ARGUMENT),
            (RequestError::NoSuchExec { id: id(), exec: "e".into() }.into(), Code::NOT_FOUND),
            (TaskError::Broken("x"), Code::INTERNAL),
        ] {
            let text = error.to_string();
            let ttrpc::Error::RpcStatus(status) = error.into() else { panic!("{text}") };
            assert_eq!(status.code.enum_value(), Ok(want), "{text}");
            assert_eq!(status.message, text);
        }
    }

    #[test]
    fn state_tells_the_end_only_after_it() {
        let running = state(&facts(), Snapshot { status: Status::Running, exit: None });
        assert_eq!((running.pid, running.exit_status), (7, 0));
        assert!(running.exited_at.is_none());
        let exit = ExitStatus { code: 42, at: SystemTime::UNIX_EPOCH + Duration::new(5, 6) };
        let stopped = state(&facts(), Snapshot { status: Status::Stopped, exit: Some(exit) });
        assert_eq!(stopped.status.enum_value(), Ok(api::Status::STOPPED));
        assert_eq!(
            (stopped.exit_status, stopped.exited_at.seconds, stopped.exited_at.nanos),
            (42, 5, 6)
        );
        assert_eq!(stopped.stderr, "e");
    }

    #[test]
    fn the_exit_event_names_the_first_process() {
        let event = exit_event(&facts(), ExitStatus::now(137));
        assert_eq!((event.id.as_str(), event.exit_status, event.pid), ("c", 137, 7));
    }
}
