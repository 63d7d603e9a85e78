//! Domain to wire: answers, events, and the one place where an error becomes a status code.

use std::time::SystemTime;

use containerd_shim_protos::api;
use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskIO, TaskOOM, TaskPaused,
    TaskResumed, TaskStart,
};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::ttrpc::{self, Code};
use containerd_shim_protos::types::{mount::Mount, task::ProcessInfo};
use coracle_oci::{CgroupError, ImageError};

use crate::exit::ExitStatus;
use crate::group::GroupError;
use crate::guest::GuestError;
use crate::request::{ExecId, RequestError, RootfsMount};
use crate::task::{Exec, ExecFacts, Facts, Snapshot, Status, Task, TaskError};

/// Type of what Pids tells of a further process, by which containerd's clients know it.
const PROCESS_DETAILS: &str = "containerd.runc.v1.ProcessDetails";
/// Field 1 of that message, a string: the process' id.
const EXEC_ID: u8 = 0x0a;

/// The status code of an error. containerd and Docker act on the code and show the message.
fn code(error: &TaskError) -> Code {
    match error {
        TaskError::NotFound(_)
        | TaskError::Finished(_)
        | TaskError::NoExec(..)
        | TaskError::ExecFinished(..) => Code::NOT_FOUND,
        TaskError::AlreadyExists(_) | TaskError::ExecExists(..) => Code::ALREADY_EXISTS,
        TaskError::Refused { .. }
        | TaskError::ExecRefused { .. }
        | TaskError::EndedBeforeStart(_)
        | TaskError::ShuttingDown
        | TaskError::Guest(GuestError::State { .. }) => Code::FAILED_PRECONDITION,
        TaskError::ExecFailed(reason) => self::code(reason),
        TaskError::Unsupported(_) => Code::UNIMPLEMENTED,
        TaskError::Request(RequestError::Unsupported(_)) => Code::UNIMPLEMENTED,
        TaskError::Request(_)
        | TaskError::Config(_)
        | TaskError::Spec(_)
        | TaskError::NoModule { .. }
        | TaskError::LinuxProgram(_)
        | TaskError::Stdio(_)
        | TaskError::Terminal { .. }
        | TaskError::Exec(_)
        | TaskError::Guest(
            GuestError::Spec { .. }
            | GuestError::Refused(_)
            | GuestError::Cgroup(CgroupError::Path { .. }),
        ) => Code::INVALID_ARGUMENT,
        TaskError::Image(ImageError::Read { .. } | ImageError::Rootfs { .. }) => Code::INTERNAL,
        TaskError::Image(_) => Code::INVALID_ARGUMENT,
        TaskError::Compile(crate::compile::CompileError::Rejected { .. }) => Code::INVALID_ARGUMENT,
        TaskError::Update(_) => Code::INVALID_ARGUMENT,
        TaskError::Group { source, .. } => group_code(source),
        TaskError::Mount(_)
        | TaskError::Compile(_)
        | TaskError::Guest(_)
        | TaskError::Broken(_) => Code::INTERNAL,
    }
}

/// What the control group did not do.
fn group_code(error: &GroupError) -> Code {
    match error {
        GroupError::None | GroupError::State(_) | GroupError::Ended => Code::FAILED_PRECONDITION,
        GroupError::Cgroup(error) => match error {
            CgroupError::NoController { .. } | CgroupError::NoFreezer { .. } => {
                Code::FAILED_PRECONDITION
            }
            CgroupError::Limit { .. }
            | CgroupError::UnifiedOnV1 { .. }
            | CgroupError::Refused { .. } => Code::INVALID_ARGUMENT,
            _ => Code::INTERNAL,
        },
        GroupError::Systemd(_) => Code::INTERNAL,
        GroupError::Stuck => Code::DEADLINE_EXCEEDED,
        GroupError::Broken(_) => Code::INTERNAL,
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
    api::StateResponse {
        id: facts.id.to_string(),
        bundle: facts.bundle.to_string_lossy().into_owned(),
        pid: facts.pid,
        status: status(snapshot.status).into(),
        stdin,
        stdout,
        stderr,
        terminal: facts.terminal,
        exit_status: snapshot.exit.map_or(0, |exit| exit.code),
        exited_at: snapshot.exit.map(|exit| timestamp(exit.at)).into(),
        ..Default::default()
    }
}

/// Answers State for a further process of a container, with which it pauses. Its id stands where that of the
/// container does otherwise, as with runc's shim.
pub fn exec_state(exec: &Exec, task: &Task) -> api::StateResponse {
    let facts = exec.facts();
    let [stdin, stdout, stderr] = facts.streams.clone();
    let (snapshot, pid) = exec.snapshot();
    let paused = match (snapshot.status, task.snapshot().status) {
        (Status::Running, paused @ (Status::Pausing | Status::Paused)) => paused,
        (own, _) => own,
    };
    api::StateResponse {
        id: facts.id.to_string(),
        exec_id: facts.id.to_string(),
        bundle: task.facts().bundle.to_string_lossy().into_owned(),
        pid,
        status: status(paused).into(),
        stdin,
        stdout,
        stderr,
        terminal: facts.terminal,
        exit_status: snapshot.exit.map_or(0, |exit| exit.code),
        exited_at: snapshot.exit.map(|exit| timestamp(exit.at)).into(),
        ..Default::default()
    }
}

fn status(status: Status) -> api::Status {
    match status {
        Status::Created => api::Status::CREATED,
        Status::Running => api::Status::RUNNING,
        Status::Pausing => api::Status::PAUSING,
        Status::Paused => api::Status::PAUSED,
        Status::Stopped => api::Status::STOPPED,
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

/// Answers Pids; of further processes with their ids.
pub fn pids(pids: Vec<u32>, execs: &[(u32, ExecId)]) -> api::PidsResponse {
    let process = |pid| {
        let exec = execs.iter().find(|(known, _)| *known == pid);
        let info = exec.map(|(_, id)| details(id));
        ProcessInfo { pid, info: info.into(), ..Default::default() }
    };
    api::PidsResponse { processes: pids.into_iter().map(process).collect(), ..Default::default() }
}

/// A message with nothing but an id, whose length is below 128.
fn details(id: &ExecId) -> Any {
    let id = id.as_str().as_bytes();
    let length = u8::try_from(id.len()).unwrap_or(u8::MAX);
    let value = [&[EXEC_ID, length], id].concat();
    Any { type_url: PROCESS_DETAILS.to_owned(), value, ..Default::default() }
}

/// The first event of a task.
pub fn create_event(facts: &Facts, mounts: &[RootfsMount]) -> TaskCreate {
    let terminal = facts.terminal;
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
        io: MessageField::some(TaskIO { stdin, stdout, stderr, terminal, ..Default::default() }),
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

/// All processes have stopped for a while.
pub fn paused_event(facts: &Facts) -> TaskPaused {
    TaskPaused { container_id: facts.id.to_string(), ..Default::default() }
}

/// They go on.
pub fn resumed_event(facts: &Facts) -> TaskResumed {
    TaskResumed { container_id: facts.id.to_string(), ..Default::default() }
}

/// The kernel has killed a process of the container for want of memory.
pub fn oom_event(facts: &Facts) -> TaskOOM {
    TaskOOM { container_id: facts.id.to_string(), ..Default::default() }
}

/// A further process was added.
pub fn exec_added_event(facts: &ExecFacts) -> TaskExecAdded {
    let (container_id, exec_id) = (facts.task.to_string(), facts.id.to_string());
    TaskExecAdded { container_id, exec_id, ..Default::default() }
}

/// The program of a further process runs.
pub fn exec_started_event(facts: &ExecFacts, pid: u32) -> TaskExecStarted {
    let (container_id, exec_id) = (facts.task.to_string(), facts.id.to_string());
    TaskExecStarted { container_id, exec_id, pid, ..Default::default() }
}

/// A further process has ended; its last event.
pub fn exec_exit_event(facts: &ExecFacts, pid: u32, exit: ExitStatus) -> TaskExit {
    TaskExit {
        container_id: facts.task.to_string(),
        id: facts.id.to_string(),
        pid,
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
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
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
    use crate::find::ExecFault;
    use crate::request::TaskId;
    use containerd_shim_protos::protobuf::Message as _;
    use std::time::Duration;

    fn facts() -> Facts {
        Facts {
            id: TaskId::parse("c").unwrap(),
            bundle: "/b".into(),
            pid: 7,
            streams: ["i".into(), "o".into(), "e".into()],
            terminal: false,
            shares_pids: false,
        }
    }

    #[test]
    fn every_refusal_has_its_code() {
        let id = || TaskId::parse("c").unwrap();
        let exec = || ExecId::parse("e").unwrap();
        let refused = TaskError::Refused { id: id(), act: "start", status: "running" };
        let missing = TaskError::Exec(ExecFault::NotInPath("sh".into()));
        for (error, want) in [
            (TaskError::NotFound(id()), Code::NOT_FOUND),
            (TaskError::Finished(id()), Code::NOT_FOUND),
            (TaskError::AlreadyExists(id()), Code::ALREADY_EXISTS),
            (refused, Code::FAILED_PRECONDITION),
            (TaskError::Unsupported("x"), Code::UNIMPLEMENTED),
            (RequestError::Unsupported("x").into(), Code::UNIMPLEMENTED),
            (RequestError::Signal(99).into(), Code::INVALID_ARGUMENT),
            (TaskError::NoExec(id(), exec()), Code::NOT_FOUND),
            (TaskError::ExecFinished(id(), exec()), Code::NOT_FOUND),
            (TaskError::ExecExists(id(), exec()), Code::ALREADY_EXISTS),
            (TaskError::ExecFailed(Box::new(missing)), Code::INVALID_ARGUMENT),
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
    fn pids_tell_which_processes_were_added() {
        let answer = pids(vec![7, 8], &[(8, ExecId::parse("e1").unwrap())]);
        assert!(answer.processes[0].info.is_none());
        let info = answer.processes[1].info.as_ref().unwrap();
        assert_eq!(info.type_url, PROCESS_DETAILS);
        let details =
            containerd_shim_protos::shim::oci::ProcessDetails::parse_from_bytes(&info.value);
        assert_eq!(details.unwrap().exec_id, "e1");
    }

    #[test]
    fn the_exit_event_names_the_first_process() {
        let event = exit_event(&facts(), ExitStatus::now(137));
        assert_eq!((event.id.as_str(), event.exit_status, event.pid), ("c", 137, 7));
    }
}
