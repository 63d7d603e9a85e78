//! What differs between two configurations as containerd understood them, and whether all of that is ours.

use toml::{Table, Value};

use crate::config::{ANNOTATIONS, Entry, SYSTEMD_CGROUP};

/// The places where two configurations differ, as keys joined by dots.
pub(crate) fn differences(before: &Table, after: &Table) -> Vec<Vec<String>> {
    let mut out = Vec::new();
    compare(before, after, &mut Vec::new(), &mut out);
    out
}

fn compare(before: &Table, after: &Table, path: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
    let mut keys: Vec<_> = before.keys().chain(after.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        path.push(key.clone());
        match (before.get(key), after.get(key)) {
            (Some(Value::Table(before)), Some(Value::Table(after))) => {
                compare(before, after, path, out);
            }
            (before, after) if before != after => out.push(path.clone()),
            _ => {}
        }
        path.pop();
    }
}

/// The differences that are not of our making.
pub(crate) fn foreign(before: &Table, after: &Table, entry: &Entry) -> Vec<String> {
    let differences = differences(before, after).into_iter();
    differences.filter(|path| !is_ours(path, entry)).map(|path| path.join(".")).collect()
}

fn is_ours(path: &[String], entry: &Entry) -> bool {
    let path: Vec<_> = path.iter().map(String::as_str).collect();
    match *path {
        // containerd lists the files that it read.
        ["imports"] => true,
        ["plugins", _, "containerd", "runtimes", handler, ..] => handler == entry.handler,
        ["plugins", _, "use_local_image_pull"] => entry.local_pull,
        _ => false,
    }
}

/// Why our handler is not in a configuration as it should be; `None` when it is.
pub(crate) fn missing(config: &Table, entry: &Entry) -> Option<String> {
    let Some(runtime) = runtime(config, &entry.handler) else {
        return Some(format!("there is no handler {}", entry.handler));
    };
    let text = |key: &str| runtime.get(key).and_then(Value::as_str).unwrap_or_default();
    let list = |key: &str| {
        let list = runtime.get(key).and_then(Value::as_array);
        list.is_some_and(|list| list.iter().filter_map(Value::as_str).eq(ANNOTATIONS))
    };
    let said = |key: &str, is: &str, should: &str| {
        (is != should)
            .then(|| format!("{key} of handler {} is {is:?}, not {should:?}", entry.handler))
    };
    said("runtime_type", text("runtime_type"), &entry.runtime_type)
        .or_else(|| said("runtime_path", text("runtime_path"), &entry.runtime_path))
        .or_else(|| {
            let lists = list("pod_annotations") && list("container_annotations");
            (!lists).then(|| format!("handler {} lists other annotations", entry.handler))
        })
        .or_else(|| {
            (systemd_cgroup(runtime) != entry.systemd_cgroup)
                .then(|| format!("SystemdCgroup of handler {} is not as runc's", entry.handler))
        })
        .or_else(|| {
            let said = runtime.get("options").and_then(Value::as_table);
            let other = |(key, value): (&String, &Value)| {
                said.and_then(|said| said.get(key)) != Some(value)
            };
            let (key, value) = entry.options.iter().find(|option| other(*option))?;
            Some(format!("option {key} of handler {} is not {value}", entry.handler))
        })
        .or_else(|| {
            (entry.sandboxer && text("sandboxer") != "shim")
                .then(|| format!("sandboxer of handler {} is not the shim", entry.handler))
        })
}

/// Whether the node's own runtime has systemd make the groups of its containers: the default handler, else runc's.
pub(crate) fn node_uses_systemd(config: &Table) -> bool {
    let default = cri(config).find_map(|cri| {
        cri.get("containerd")?.get("default_runtime_name")?.as_str().map(str::to_owned)
    });
    let names = default.iter().map(String::as_str).chain(["runc"]);
    names.filter_map(|name| runtime(config, name)).any(systemd_cgroup)
}

/// The type of a handler's runtime.
pub(crate) fn runtime_type<'a>(config: &'a Table, handler: &str) -> Option<&'a str> {
    runtime(config, handler)
        .map(|runtime| runtime.get("runtime_type").and_then(Value::as_str).unwrap_or("?"))
}

/// The handlers of one configuration that another has not. containerd 1 forgets its own default, runc, when a file names
/// any handler.
pub(crate) fn lost_runtimes(before: &Table, after: &Table) -> Table {
    let list = cri(before).find_map(|cri| cri.get("containerd")?.get("runtimes")?.as_table());
    let lost = list.into_iter().flatten().filter(|(name, _)| runtime(after, name).is_none());
    lost.map(|(name, table)| (name.clone(), table.clone())).collect()
}

/// Whether CRI is switched off.
pub(crate) fn cri_disabled(config: &Table) -> bool {
    let disabled = config.get("disabled_plugins").and_then(Value::as_array);
    disabled.into_iter().flatten().filter_map(Value::as_str).any(|plugin| {
        matches!(plugin, "cri" | "io.containerd.grpc.v1.cri" | "io.containerd.cri.v1.runtime")
    })
}

/// containerd's socket.
pub(crate) fn socket(config: &Table) -> Option<String> {
    let server = || config.get("plugins")?.get("io.containerd.server.v1.grpc")?.get("address");
    let address = config.get("grpc").and_then(|grpc| grpc.get("address")).or_else(server)?;
    address.as_str().filter(|address| !address.is_empty()).map(str::to_owned)
}

fn cri(config: &Table) -> impl Iterator<Item = &Value> {
    let plugins = config.get("plugins").and_then(Value::as_table);
    let keys = ["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "cri"];
    keys.into_iter().filter_map(move |key| plugins?.get(key))
}

fn runtime<'a>(config: &'a Table, handler: &str) -> Option<&'a Value> {
    cri(config).find_map(|cri| cri.get("containerd")?.get("runtimes")?.get(handler))
}

fn systemd_cgroup(runtime: &Value) -> bool {
    let option = || runtime.get("options")?.get(SYSTEMD_CGROUP)?.as_bool();
    option().unwrap_or(false)
}

/// What an import of k0s does: tables are joined, all else is replaced.
pub(crate) fn overlay(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(from)) => overlay(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn entry() -> Entry {
        Entry {
            handler: "wasm".into(),
            runtime_type: crate::config::RUNTIME_TYPE.into(),
            runtime_path: "/opt/coracle/bin/containerd-shim-wasm-v1".into(),
            systemd_cgroup: true,
            options: toml::Table::new(),
            sandboxer: false,
            local_pull: false,
            defaults: toml::Table::new(),
        }
    }

    const BEFORE: &str = r#"
version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "pause"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = true
"#;

    #[test]
    fn our_additions_are_ours_and_nothing_else_is() {
        let before: Table = BEFORE.parse().unwrap();
        let version = config::version(BEFORE).unwrap();
        let text = config::add(BEFORE, version, &entry()).unwrap();
        let after: Table = text.parse().unwrap();
        assert!(foreign(&before, &after, &entry()).is_empty());
        assert_eq!(missing(&after, &entry()), None);
        assert!(missing(&before, &entry()).unwrap().contains("no handler"));
        // What containerd 1.x makes of a drop-in.
        let replaced: Table = config::own_file(version, &entry()).parse().unwrap();
        let foreign = foreign(&before, &replaced, &entry());
        assert_eq!(
            foreign,
            [
                "plugins.io.containerd.grpc.v1.cri.containerd.runtimes.runc",
                "plugins.io.containerd.grpc.v1.cri.sandbox_image",
            ]
        );
        let other = Entry { systemd_cgroup: false, ..entry() };
        assert!(missing(&after, &other).unwrap().contains("SystemdCgroup"));
        let other = Entry { options: "A = 1".parse().unwrap(), ..entry() };
        assert!(missing(&after, &other).unwrap().contains("option A of handler wasm is not 1"));
    }

    #[test]
    fn facts_are_found_in_dumps() {
        assert!(node_uses_systemd(&BEFORE.parse().unwrap()));
        assert!(!node_uses_systemd(&Table::new()));
        assert!(cri_disabled(&"disabled_plugins = [\"cri\"]".parse().unwrap()));
        assert!(!cri_disabled(
            &"disabled_plugins = [\"io.containerd.grpc.v1.x\"]".parse().unwrap()
        ));
        assert_eq!(socket(&"[grpc]\naddress = \"/a\"".parse().unwrap()).as_deref(), Some("/a"));
        let four = "[plugins.\"io.containerd.server.v1.grpc\"]\naddress = \"/b\"";
        assert_eq!(socket(&four.parse().unwrap()).as_deref(), Some("/b"));
    }

    #[test]
    fn overlays_join_tables() {
        let mut into: Table = "a = { x = 1, y = [1] }".parse().unwrap();
        overlay(&mut into, "a = { y = [2], z = 3 }".parse().unwrap());
        assert_eq!(into, "a = { x = 1, y = [2], z = 3 }".parse().unwrap());
    }
}
