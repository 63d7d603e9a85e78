//! The channel between the shim and one guest process: a stream socket pair with framed messages.
//!
//! A frame is a little-endian `u32` length and that many bytes of postcard. The guest's half reads
//! and writes with plain blocking calls; the shim's half belongs to tokio. Descriptors travel with
//! the first byte of their frame.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as BlockingStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::early::{EARLY_FRAME, EARLY_LEN, EarlyFailure};
use super::plan::{FromGuest, ToGuest};

/// Longest message in bytes. A plan carries the arguments and the environment, which `execve` would
/// limit to 2 MiB, and the annotations.
pub(super) const MESSAGE_LIMIT: usize = 16 << 20;

/// Most descriptors that travel with a message, a container's mounts as a rule; the kernel's limit, see
/// unix(7).
const MOST_FDS: usize = 253;

/// Makes the two ends: the shim's, and the guest's as a descriptor for a child process.
pub(super) fn pair() -> io::Result<(ShimEnd, OwnedFd)> {
    let (ours, theirs) = BlockingStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((ShimEnd { stream: UnixStream::from_std(ours)?, fds: Vec::new() }, theirs.into()))
}

fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let body = postcard::to_extend(message, vec![0; 4]).map_err(io::Error::other)?;
    let mut frame = body;
    let length = frame.len() - 4;
    if length > MESSAGE_LIMIT {
        let text = format!("the message has {length} bytes, more than {MESSAGE_LIMIT}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    if let Some(header) = frame.first_chunk_mut() {
        *header = (length as u32).to_le_bytes();
    }
    Ok(frame)
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    postcard::from_bytes(body).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

fn body_length(header: u32) -> io::Result<usize> {
    let length = header as usize;
    if length > MESSAGE_LIMIT {
        let text = format!("a message claims {length} bytes, more than {MESSAGE_LIMIT}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(length)
}

/// What [`ShimEnd::receive`] got.
#[derive(Debug)]
pub(super) enum Received {
    /// An ordinary message.
    Message(FromGuest),
    /// The process failed before it was the guest runner.
    Early(EarlyFailure),
    /// The process closed its end: it has started, or it is dead.
    Closed,
}

/// The shim's end.
#[derive(Debug)]
pub(super) struct ShimEnd {
    stream: UnixStream,
    /// What came along with messages.
    fds: Vec<OwnedFd>,
}

impl AsFd for ShimEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl ShimEnd {
    /// Releases a fresh child, which waits for one byte before it executes the runner.
    pub(super) async fn release(&mut self) -> io::Result<()> {
        self.stream.write_all(&[1]).await
    }

    /// Sends one message.
    pub(super) async fn send(&mut self, message: &ToGuest) -> io::Result<()> {
        self.stream.write_all(&encode(message)?).await
    }

    /// Sends one message with descriptors attached, [`MOST_FDS`] at most.
    pub(super) async fn send_with(
        &mut self,
        message: &ToGuest,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        if fds.is_empty() {
            return self.send(message).await;
        }
        if fds.len() > MOST_FDS {
            let text = format!("{} descriptors, {MOST_FDS} at most can be sent", fds.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let frame = encode(message)?;
        let sent = self
            .stream
            .async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                control.push(SendAncillaryMessage::ScmRights(fds));
                let data = [IoSlice::new(&frame)];
                let flags = SendFlags::NOSIGNAL;
                Ok(rustix::net::sendmsg(self.stream.as_fd(), &data, &mut control, flags)?)
            })
            .await?;
        self.stream.write_all(frame.get(sent..).unwrap_or_default()).await
    }

    /// Reads the header of a message, whose first byte may bring descriptors.
    async fn read_header(&mut self, header: &mut [u8; 4]) -> io::Result<()> {
        let stream = &self.stream;
        let mut receive = || receive_with_fds(stream.as_fd(), header);
        let (got, fds) = stream.async_io(Interest::READABLE, &mut receive).await?;
        self.fds.extend(fds);
        self.stream.read_exact(header.get_mut(got..).unwrap_or_default()).await.map(drop)
    }

    /// The last descriptor that came with a message.
    pub(super) fn take_fd(&mut self) -> Option<OwnedFd> {
        self.fds.pop()
    }

    /// Receives the next message.
    pub(super) async fn receive(&mut self) -> io::Result<Received> {
        let mut header = [0; 4];
        match self.read_header(&mut header).await {
            Ok(()) => {}
            Err(error) if is_closed(&error) => return Ok(Received::Closed),
            Err(error) => return Err(error),
        }
        let header = u32::from_le_bytes(header);
        if header == EARLY_FRAME | EARLY_LEN as u32 {
            let mut bytes = [0; EARLY_LEN];
            self.stream.read_exact(&mut bytes).await?;
            return Ok(Received::Early(EarlyFailure::from_bytes(bytes)));
        }
        let mut body = vec![0; body_length(header)?];
        match self.stream.read_exact(&mut body).await {
            Ok(_) => decode(&body).map(Received::Message),
            Err(error) if is_closed(&error) => Ok(Received::Closed),
            Err(error) => Err(error),
        }
    }
}

/// A dead peer shows as an end of file or, if it left unread data, as a reset.
fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

/// The guest's end.
#[derive(Debug)]
pub(super) struct GuestEnd {
    stream: BlockingStream,
}

impl GuestEnd {
    /// Takes over the descriptor.
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { stream: fd.into() }
    }

    /// Sends one message.
    pub(super) fn send(&mut self, message: &FromGuest) -> io::Result<()> {
        self.stream.write_all(&encode(message)?)
    }

    /// Sends one message with a descriptor attached.
    pub(super) fn send_with(&mut self, message: &FromGuest, fd: BorrowedFd<'_>) -> io::Result<()> {
        let frame = encode(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let fds = [fd];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let data = [IoSlice::new(&frame)];
        let sent = rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(&self.stream, &data, &mut control, SendFlags::NOSIGNAL)
        })?;
        self.stream.write_all(frame.get(sent..).unwrap_or_default())
    }

    /// Receives the next message and the descriptors that came with it, in their order.
    ///
    /// # Errors
    /// `UnexpectedEof` when the shim is gone.
    pub(super) fn receive(&mut self) -> io::Result<(ToGuest, Vec<OwnedFd>)> {
        let mut header = [0; 4];
        let (got, fds) = receive_with_fds(self.stream.as_fd(), &mut header)?;
        self.stream.read_exact(header.get_mut(got..).unwrap_or_default())?;
        let mut body = vec![0; body_length(u32::from_le_bytes(header))?];
        self.stream.read_exact(&mut body)?;
        Ok((decode(&body)?, fds))
    }
}

/// Receives what is there, and the descriptors that came with it, in their order.
///
/// # Errors
/// `UnexpectedEof` when the other end is closed.
fn receive_with_fds(
    stream: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = rustix::io::retry_on_intr(|| {
        let mut data = [IoSliceMut::new(buffer)];
        rustix::net::recvmsg(stream, &mut data, &mut control, flags)
    })?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut all = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            all.extend(fds);
        }
    }
    Ok((received.bytes, all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::plan::Plan;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_plan_larger_than_the_socket_buffer_and_descriptors_arrive() {
        runtime().block_on(async {
            let (mut shim, guest) = pair().unwrap();
            let mut guest = GuestEnd::new(guest);
            let reader = std::thread::spawn(move || {
                let (plan, none) = guest.receive().unwrap();
                assert!(none.is_empty());
                let ToGuest::Plan(plan) = plan else { panic!("not a plan") };
                assert_eq!(plan.id.len(), 3 << 20);
                let (start, fds) = guest.receive().unwrap();
                assert!(matches!(start, ToGuest::Start));
                let mut text = String::new();
                for fd in fds {
                    std::fs::File::from(fd).read_to_string(&mut text).unwrap();
                }
                guest.send(&FromGuest::Failed(text)).unwrap();
            });
            let plan = Plan { id: "x".repeat(3 << 20), ..Plan::default() };
            shim.send(&ToGuest::Plan(Box::new(plan))).await.unwrap();
            let files = ["image", " and more"].map(|text| {
                let file = tempfile::NamedTempFile::new().unwrap();
                std::fs::write(file.path(), text).unwrap();
                file
            });
            let fds = [files[0].as_file().as_fd(), files[1].as_file().as_fd()];
            shim.send_with(&ToGuest::Start, &fds).await.unwrap();
            match shim.receive().await.unwrap() {
                Received::Message(FromGuest::Failed(text)) => assert_eq!(text, "image and more"),
                other => panic!("unexpected {other:?}"),
            }
            reader.join().unwrap();
            assert!(matches!(shim.receive().await.unwrap(), Received::Closed));
        });
    }

    #[test]
    fn lengths_beyond_the_limit_are_refused_before_memory_is_taken() {
        runtime().block_on(async {
            let (mut shim, guest) = pair().unwrap();
            rustix::io::write(&guest, &0x7fff_ffff_u32.to_le_bytes()).unwrap();
            let error = shim.receive().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            let plan = Plan { id: "x".repeat(MESSAGE_LIMIT), ..Plan::default() };
            let error = shim.send(&ToGuest::Plan(Box::new(plan))).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        });
    }

    #[test]
    fn garbage_is_an_error_and_a_cut_message_is_a_closed_channel() {
        runtime().block_on(async {
            let (mut shim, guest) = pair().unwrap();
            rustix::io::write(&guest, &[1, 0, 0, 0, 0xff]).unwrap();
            assert!(shim.receive().await.is_err());
            rustix::io::write(&guest, &[9, 0, 0, 0, 1]).unwrap();
            drop(guest);
            assert!(matches!(shim.receive().await.unwrap(), Received::Closed));
        });
    }
}
