//! containerd goes and comes back; the daemon goes and comes back.

use rustix::process::Signal;

use crate::bed::{eventually, unique};
use crate::node::{Node, import, is, run};
use crate::own_bed::on_each_containerd;
use crate::pack::{Form, Image};

const COMPILED: &str = "coracle_precompilations_total{outcome=\"compiled\"}";

#[test]
fn nothing_is_lost_when_containerd_is_away() {
    on_each_containerd(|bed| {
        let node = Node::start(bed, &[], &[])?;
        is(&node.metrics()?, "coracle_containerd_up", 1.0)?;
        for (count, signal) in [(1.0, Signal::TERM), (2.0, Signal::KILL)] {
            let launch = bed.end(signal)?;
            let ready = || node.get("/readyz").map(|page| page.status);
            eventually("the daemon not to be ready", || ready() == Ok(503))?;
            let healthy = node.get("/healthz")?;
            if healthy.status != 200 {
                return Err(format!("the daemon itself is fine, but {healthy:?}"));
            }
            is(&node.metrics()?, "coracle_containerd_up", 0.0)?;
            // It comes while the daemon does not listen.
            node.signal(Signal::STOP)?;
            bed.start(&launch)?;
            let image = Image::pack(&unique("away"), Form::Layer);
            import(bed, &image)?;
            node.signal(Signal::CONT)?;
            node.becomes(COMPILED, count)?;
            eventually("the daemon to be ready", || ready() == Ok(200))?;
        }
        let told = node.said("containerd is away: it will be looked for").len();
        if told == 2 { Ok(()) } else { Err(format!("told {told} times, not twice")) }
    });
}

#[test]
fn containers_start_without_the_daemon_and_the_next_one_goes_on() {
    on_each_containerd(|bed| {
        let mut node = Node::start(bed, &[], &[])?;
        let first = Image::pack(&unique("killed"), Form::Rootfs);
        import(bed, &first)?;
        node.becomes(COMPILED, 1.0)?;
        node.end(Signal::KILL)?;
        // Its socket is left, and nobody listens.
        let second = Image::pack(&unique("alone"), Form::Rootfs);
        import(bed, &second)?;
        for image in [&first, &second] {
            let done = run(bed, image, &[]);
            done.expect("the container to run", done.code == 0)?;
        }
        let node = Node::start(bed, &[], &[])?;
        node.becomes("coracle_precompilations_total{outcome=\"cached\"}", 2.0)?;
        let done = run(bed, &first, &[]);
        done.expect("the container to run", done.code == 0)?;
        node.becomes("coracle_container_exits_total{end=\"success\"}", 1.0)
    });
}
