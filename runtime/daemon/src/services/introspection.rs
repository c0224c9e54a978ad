//! `containerd.services.introspection.v1`: what the daemon is made of.
//!
//! Every pull and every new container of containerd's own client begins with the question for the snapshotter's plug-in
//! (`type==io.containerd.snapshotter.v1, id==overlayfs`) and ends there if it is not answered.

use std::borrow::Cow;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use runtime_api::containerd::services::introspection::v1::introspection_server::Introspection;
use runtime_api::containerd::services::introspection::v1::{
    Plugin, PluginInfoRequest, PluginInfoResponse, PluginsRequest, PluginsResponse, ServerResponse,
};
use runtime_api::containerd::types;
use storage_model::Platform;
use tonic::{Request, Response, Status};

use crate::convert::{field, filters};

const CONTENT: &str = "io.containerd.content.v1";
const GRPC: &str = "io.containerd.grpc.v1";
const METADATA: &str = "io.containerd.metadata.v1";
const RUNTIME: &str = "io.containerd.runtime.v2";
const SNAPSHOTTER: &str = "io.containerd.snapshotter.v1";

/// Plug-ins of type `io.containerd.grpc.v1`, by containerd's names for them.
const SERVICES: [&str; 14] = [
    "containers",
    "content",
    "diff",
    "events",
    "healthcheck",
    "images",
    "introspection",
    "leases",
    "namespaces",
    "snapshots",
    "streaming",
    "tasks",
    "transfer",
    "version",
];

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct IntrospectionService {
    plugins: Vec<Plugin>,
    uuid: String,
}

impl IntrospectionService {
    /// Describes a daemon of `root` that has these snapshotters.
    pub(crate) fn new(root: &Path, snapshotters: &[&str], uuid: String) -> Self {
        let plugin = |kind: &str, id: &str, requires: &[&str]| Plugin {
            r#type: kind.to_owned(),
            id: id.to_owned(),
            requires: requires.iter().map(|kind| (*kind).to_owned()).collect(),
            platforms: vec![platform_out(&Platform::host())],
            exports: HashMap::from([("root".to_owned(), root.display().to_string())]),
            capabilities: Vec::new(),
            init_err: None,
        };
        let mut plugins = vec![plugin(CONTENT, "content", &[])];
        plugins.extend(snapshotters.iter().map(|name| plugin(SNAPSHOTTER, name, &[])));
        // containerd's own name of what runs tasks under shims of the second protocol.
        plugins.extend(["task", "shim"].map(|name| plugin(RUNTIME, name, &[METADATA])));
        plugins.push(plugin(METADATA, "rocksdb", &[CONTENT, SNAPSHOTTER]));
        plugins.extend(SERVICES.iter().map(|name| plugin(GRPC, name, &[METADATA])));
        Self { plugins, uuid }
    }
}

fn platform_out(platform: &Platform) -> types::Platform {
    types::Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
    }
}

fn plugin_field<'a>(plugin: &'a Plugin, path: &[String]) -> Option<Cow<'a, str>> {
    match path[0].as_str() {
        "type" => field(&plugin.r#type),
        "id" => field(&plugin.id),
        _ => None,
    }
}

#[tonic::async_trait]
impl Introspection for IntrospectionService {
    async fn plugins(&self, request: Request<PluginsRequest>) -> Result<Response<PluginsResponse>, Status> {
        let filters = filters(&request.into_inner().filters)?;
        let wanted = |plugin: &&Plugin| filters.matches(|path| plugin_field(plugin, path));
        Ok(Response::new(PluginsResponse { plugins: self.plugins.iter().filter(wanted).cloned().collect() }))
    }

    async fn server(&self, _: Request<()>) -> Result<Response<ServerResponse>, Status> {
        // The number of the namespace is a courtesy: without /proc it is absent, as in containerd before 1.7.
        let pidns = std::fs::metadata("/proc/self/ns/pid").map_or(0, |metadata| metadata.ino());
        Ok(Response::new(ServerResponse {
            uuid: self.uuid.clone(),
            pid: u64::from(std::process::id()),
            pidns,
            deprecations: Vec::new(),
        }))
    }

    async fn plugin_info(
        &self,
        request: Request<PluginInfoRequest>,
    ) -> Result<Response<PluginInfoResponse>, Status> {
        let PluginInfoRequest { r#type: kind, id, options } = request.into_inner();
        let plugin = self.plugins.iter().find(|plugin| plugin.r#type == kind && plugin.id == id);
        let plugin = plugin.ok_or_else(|| Status::not_found(format!("no plug-in is called {kind}.{id}")))?;
        if options.is_some() {
            return Err(Status::unimplemented(format!("plug-in {kind}.{id} takes no options")));
        }
        Ok(Response::new(PluginInfoResponse { plugin: Some(plugin.clone()), extra: None }))
    }
}
