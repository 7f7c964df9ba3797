//! A connection to a server of counters, in the words of the `redis` crate.
//!
//! Errors are told by their kind and code alone: their texts are the server's.

use std::sync::LazyLock;

use aws_lc_rs::digest;
use pointsman_gateway::limits::remote::{Address, Call, Login, Place, Script, Server, Verify};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo as _, RedisConnectionInfo, RedisError, RedisResult, ServerErrorKind,
    TlsCertificates, TlsMode, Value,
    aio::{ConnectionLike as _, MultiplexedConnection},
    cluster::ClusterClientBuilder,
    cluster_async::ClusterConnection,
    sentinel::{SentinelClientBuilder, SentinelServerType},
};

/// A connection. All that was asked through clones of it goes the same way.
#[derive(Clone)]
pub(super) enum Link {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// Why there is no answer.
pub(super) enum Trouble {
    /// It is no use to ask through this connection again.
    Lost(String),
    /// There is one, but it is not what was asked for.
    Answer(String),
}

impl Link {
    /// Connects, and makes sure that somebody answers.
    pub(super) async fn open(server: &Server, roots: Option<&[u8]>) -> Result<Self, String> {
        let opened = async {
            let mut link = Self::connect(server, roots).await?;
            link.ask(&redis::cmd("PING")).await?;
            Ok(link)
        };
        match tokio::time::timeout(server.connect_timeout, opened).await {
            Ok(link) => link.map_err(|error: RedisError| told(&error)),
            Err(_) => Err("nobody answers in time".to_owned()),
        }
    }

    /// Runs the script: by the hash of its text, or by that itself if the server does not know it.
    pub(super) async fn run(mut self, call: &Call) -> Result<Vec<i64>, Trouble> {
        let by_hash = command("EVALSHA", &HASHES[call.script as usize], call);
        let mut answer = self.ask(&by_hash).await;
        let is_unknown =
            |error: &RedisError| error.kind() == ErrorKind::Server(ServerErrorKind::NoScript);
        if answer.as_ref().is_err_and(is_unknown) {
            answer = self.ask(&command("EVAL", call.script.text(), call)).await;
        }
        match answer {
            Ok(value) => numbers(value)
                .ok_or_else(|| Trouble::Answer("its answer is not a script's".to_owned())),
            Err(error) if self.is_lost(&error) => Err(Trouble::Lost(told(&error))),
            Err(error) => Err(Trouble::Answer(told(&error))),
        }
    }

    /// How it is called in the log.
    pub(super) fn name(server: &Server) -> String {
        let list = |addresses: &[Address]| {
            let each = addresses
                .iter()
                .map(|at| format!("{}:{}", at.host, at.port));
            each.collect::<Vec<_>>().join(", ")
        };
        match &server.place {
            Place::One(at) => format!("{}:{}", at.host, at.port),
            Place::Cluster(nodes) => format!("cluster {}", list(nodes)),
            Place::Sentinels {
                sentinels, master, ..
            } => format!("master `{master}` of sentinels {}", list(sentinels)),
        }
    }

    async fn connect(server: &Server, roots: Option<&[u8]>) -> RedisResult<Self> {
        // Time is limited by whoever asks.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let certificates = || TlsCertificates {
            client_tls: None,
            root_cert: roots.map(<[u8]>::to_vec),
        };
        match &server.place {
            Place::One(address) => {
                let info = info(server, address)?;
                let client = match server.tls {
                    Some(_) => Client::build_with_tls(info, certificates())?,
                    None => Client::open(info)?,
                };
                let link = client.get_multiplexed_async_connection_with_config(&config);
                link.await.map(Self::One)
            }
            Place::Cluster(nodes) => {
                let nodes = nodes.iter().map(|address| info(server, address));
                let mut builder =
                    ClusterClientBuilder::new(nodes.collect::<RedisResult<Vec<_>>>()?)
                        .connection_timeout(server.connect_timeout)
                        .response_timeout(server.timeout)
                        .retries(CLUSTER_RETRIES)
                        .max_retry_wait(CLUSTER_WAIT_MS);
                if let Some(verify) = server.tls {
                    builder = builder.tls(mode(verify)).certs(certificates());
                }
                let link = builder.build()?.get_async_connection().await?;
                Ok(Self::Cluster(link))
            }
            Place::Sentinels {
                sentinels,
                master,
                login,
            } => {
                let mut builder = SentinelClientBuilder::new(
                    sentinels.iter().map(plain),
                    master,
                    SentinelServerType::Master,
                )?
                .set_client_to_redis_db(i64::from(server.database));
                if let Some(username) = &server.login.username {
                    builder = builder.set_client_to_redis_username(username);
                }
                if let Some(password) = &server.login.password {
                    builder = builder.set_client_to_redis_password(password);
                }
                if let Some(username) = &login.username {
                    builder = builder.set_client_to_sentinel_username(username);
                }
                if let Some(password) = &login.password {
                    builder = builder.set_client_to_sentinel_password(password);
                }
                if let Some(verify) = server.tls {
                    builder = builder
                        .set_client_to_redis_tls_mode(mode(verify))
                        .set_client_to_redis_certificates(certificates());
                }
                let mut client = builder.build()?;
                let link = client.get_async_connection_with_config(&config);
                link.await.map(Self::One)
            }
        }
    }

    /// Whether it looks after itself: one member that is down says nothing of the others.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// Whether another connection may do better: this one has ended, or leads to what is no master any
    /// longer.
    fn is_lost(&self, error: &RedisError) -> bool {
        if self.is_cluster() {
            return error.kind() == ErrorKind::ClusterConnectionNotFound;
        }
        let is_replica = matches!(
            error.kind(),
            ErrorKind::Parse
                | ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
        );
        is_replica || error.is_io_error() || error.is_unrecoverable_error()
    }

    async fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        let answer = match self {
            Self::One(link) => link.req_packed_command(command).await,
            Self::Cluster(link) => link.req_packed_command(command).await,
        };
        // An error of the server is an answer to the library.
        answer?.extract_error()
    }
}

fn info(server: &Server, address: &Address) -> RedisResult<ConnectionInfo> {
    let address = match server.tls {
        None => plain(address),
        Some(verify) => ConnectionAddr::TcpTls {
            host: address.host.clone(),
            port: address.port,
            insecure: verify == Verify::Nothing,
            tls_params: None,
        },
    };
    let Login { username, password } = &server.login;
    let mut settings = RedisConnectionInfo::default()
        .set_db(i64::from(server.database))
        .set_skip_set_lib_name();
    if let Some(username) = username {
        settings = settings.set_username(username);
    }
    if let Some(password) = password {
        settings = settings.set_password(password);
    }
    Ok(address.into_connection_info()?.set_redis_settings(settings))
}

fn plain(address: &Address) -> ConnectionAddr {
    ConnectionAddr::Tcp(address.host.clone(), address.port)
}

fn mode(verify: Verify) -> TlsMode {
    match verify {
        Verify::Certificates => TlsMode::Secure,
        Verify::Nothing => TlsMode::Insecure,
    }
}

fn command(name: &str, script: &str, call: &Call) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(script).arg(1).arg(&call.key);
    for argument in &call.arguments {
        command.arg(argument);
    }
    command
}

/// A list of whole numbers.
fn numbers(value: Value) -> Option<Vec<i64>> {
    let Value::Array(values) = value else {
        return None;
    };
    let number = |value| match value {
        Value::Int(number) => Some(number),
        _ => None,
    };
    values.into_iter().map(number).collect()
}

/// What may be said of an error.
fn told(error: &RedisError) -> String {
    match error.code() {
        Some(code) if code.len() <= CODE_MAX && code.bytes().all(|b| b.is_ascii_uppercase()) => {
            format!("{} ({code})", error.category())
        }
        _ => error.category().to_owned(),
    }
}

/// The scripts' hashes, by which a server knows them, in the order of [`Script::ALL`].
static HASHES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let hash = |script: &Script| {
        let sum = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, script.text().as_bytes());
        sum.as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    };
    Script::ALL.iter().map(hash).collect()
});

/// Longer codes are no codes.
const CODE_MAX: usize = 32;
const CLUSTER_RETRIES: u32 = 3;
const CLUSTER_WAIT_MS: u64 = 100;
