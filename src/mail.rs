//! Mails out: to an SMTP server, or as files into an outbox.
//!
//! M1  A mail is handed over whole or not at all: an outbox file appears under its name only when it is complete.
//! M2  Headers are made by the mail library from parsed addresses; no text of a request is pasted into one.
//! M3  ASCII text travels as it is, so that a line of the body is a line of the file.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Message};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

/// One mail is handed over within this. A registration waits for it, so it is below the clients' own 30 s.
const SEND_DEADLINE: Duration = Duration::from_secs(15);
/// Longest recipient in a file name: most file systems end at 255 bytes.
const NAME_MAX: usize = 200;

/// A mail was not handed over.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// Settings: the server's URL.
    #[error("the SMTP URL is not valid")]
    Url(#[source] lettre::transport::smtp::Error),
    /// Not an address.
    #[error("not a mail address")]
    Address(#[from] lettre::address::AddressError),
    /// The parts do not make a mail.
    #[error("the mail cannot be composed")]
    Compose(#[from] lettre::error::Error),
    /// The outbox refuses.
    #[error("the outbox cannot be written")]
    Outbox(#[from] io::Error),
    /// The server refuses, or cannot be reached.
    #[error("the SMTP server did not take the mail")]
    Smtp(#[source] lettre::transport::smtp::Error),
    /// No answer in time.
    #[error("the mail was not handed over in time")]
    Timeout,
}

/// Sends mails. Clones share one way out.
#[derive(Debug, Clone)]
pub struct Mailer {
    from: Mailbox,
    way: Way,
}

#[derive(Debug, Clone)]
enum Way {
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
    Outbox(Arc<Outbox>),
}

#[derive(Debug)]
struct Outbox {
    dir: PathBuf,
    /// Milliseconds in the newest file name; every name is later, so no two are alike.
    newest: AtomicU64,
}

impl Mailer {
    /// Through a server: `smtp://`, `smtps://`, with user and password if it wants them.
    pub fn smtp(url: &str, from: &str) -> Result<Self, MailError> {
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url).map_err(MailError::Url)?;
        let transport = transport.timeout(Some(SEND_DEADLINE)).build();
        Ok(Self { from: mailbox(from)?, way: Way::Smtp(transport) })
    }

    /// Into files `<millis>-<recipient>.eml` under `dir`, which is made if missing.
    pub fn outbox(dir: PathBuf, from: &str) -> Result<Self, MailError> {
        std::fs::create_dir_all(&dir)?;
        let outbox = Outbox { dir, newest: AtomicU64::new(0) };
        Ok(Self { from: mailbox(from)?, way: Way::Outbox(Arc::new(outbox)) })
    }

    /// Hands one mail over. `Ok` does not mean that it arrived.
    pub async fn send(&self, to: &str, subject: &str, body: &str) -> Result<(), MailError> {
        let mail = self.compose(to, subject, body)?;
        let handed_over = async {
            match &self.way {
                Way::Smtp(transport) => transport.send(mail).await.map(drop).map_err(MailError::Smtp),
                Way::Outbox(outbox) => {
                    let (outbox, to) = (Arc::clone(outbox), to.to_owned());
                    let written = tokio::task::spawn_blocking(move || outbox.write(&to, &mail.formatted()));
                    Ok(written.await.map_err(io::Error::other)??)
                }
            }
        };
        tokio::time::timeout(SEND_DEADLINE, Box::pin(handed_over)).await.map_err(|_| MailError::Timeout)?
    }

    /// Whether mails can be handed over: the server answers, or the outbox takes a file.
    pub async fn probe(&self) -> Result<(), MailError> {
        let asked = async {
            match &self.way {
                Way::Smtp(transport) => match transport.test_connection().await.map_err(MailError::Smtp)? {
                    true => Ok(()),
                    false => Err(MailError::Timeout),
                },
                Way::Outbox(outbox) => {
                    let file = outbox.dir.join(format!(".probe-{}", rand::random::<u64>()));
                    Ok(write_private(&file, b"").and_then(|()| std::fs::remove_file(&file))?)
                }
            }
        };
        tokio::time::timeout(SEND_DEADLINE, Box::pin(asked)).await.map_err(|_| MailError::Timeout)?
    }

    fn compose(&self, to: &str, subject: &str, body: &str) -> Result<Message, MailError> {
        let id = format!("<{:032x}@{}>", rand::random::<u128>(), self.from.email.domain());
        let mail = Message::builder()
            .from(self.from.clone())
            .to(mailbox(to)?)
            .subject(subject)
            .date_now()
            .message_id(Some(id))
            .header(ContentType::TEXT_PLAIN)
            .body(body.to_owned())?;
        Ok(mail)
    }
}

fn mailbox(address: &str) -> Result<Mailbox, MailError> {
    Ok(Mailbox::new(None, address.parse::<Address>()?))
}

impl Outbox {
    fn write(&self, to: &str, mail: &[u8]) -> io::Result<()> {
        let name = format!("{}-{}", self.next_millis(), file_name_part(to));
        let unfinished = self.dir.join(format!(".{name}.part"));
        let written = write_private(&unfinished, mail)
            .and_then(|()| std::fs::rename(&unfinished, self.dir.join(format!("{name}.eml"))));
        if written.is_err() {
            // Already failing; what is left behind does not look like a mail.
            let _ = std::fs::remove_file(&unfinished);
        }
        written
    }

    fn next_millis(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let later = |newest: u64| Some(now.max(newest.saturating_add(1)));
        let before = self.newest.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
        now.max(before.unwrap_or_default().saturating_add(1))
    }
}

/// Codes are for the operator of this machine only.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}

/// What no file system and no shell takes for anything but part of a name.
fn file_name_part(recipient: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "@.+-_=".contains(c) { c } else { '_' };
    recipient.chars().take(NAME_MAX).map(safe).collect()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;

    use super::*;

    fn files(dir: &Path) -> Vec<(String, String)> {
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries
            .map(|path| {
                (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(path).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    #[tokio::test]
    async fn an_outbox_file_is_a_plain_mail_with_the_code_on_a_line_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let mailer = Mailer::outbox(dir.path().join("outbox"), "agentchat@localhost").unwrap();
        mailer.send("alice+a@example.com", "A code", "Hello,\n\n012345\n\nbye = 100%\n").await.unwrap();
        let files = files(&dir.path().join("outbox"));
        let [(name, mail)] = files.as_slice() else { panic!("{files:?}") };
        let (millis, rest) = name.split_once('-').unwrap();
        assert!(millis.parse::<u64>().is_ok(), "{name}");
        assert_eq!(rest, "alice+a@example.com.eml");
        let (head, body) = mail.split_once("\r\n\r\n").unwrap();
        assert_eq!(body.lines().filter(|line| *line == "012345").count(), 1, "{body}");
        assert!(body.contains("bye = 100%"), "{body}");
        for header in ["From: ", "To: ", "Subject: ", "Date: ", "Message-ID: ", "Content-Type: text/plain"] {
            assert!(head.lines().any(|line| line.starts_with(header)), "{header} in {head}");
        }
        assert!(!head.contains("quoted-printable") && !head.contains("base64"), "{head}");
    }

    #[tokio::test]
    async fn names_are_unique_within_a_millisecond_and_safe() {
        let dir = tempfile::tempdir().unwrap();
        let mailer = Mailer::outbox(dir.path().to_owned(), "agentchat@localhost").unwrap();
        let sends = (0..50).map(|_| mailer.send("bob@example.com", "s", "b"));
        for sent in futures_util::future::join_all(sends).await {
            sent.unwrap();
        }
        assert_eq!(files(dir.path()).len(), 50);
        assert_eq!(file_name_part("../a b/c$@x.org"), ".._a_b_c_@x.org");
    }

    #[tokio::test]
    async fn a_recipient_cannot_add_headers() {
        let dir = tempfile::tempdir().unwrap();
        let mailer = Mailer::outbox(dir.path().to_owned(), "agentchat@localhost").unwrap();
        let sent = mailer.send("a@example.com\r\nBcc: b@example.com", "s", "b").await;
        assert!(matches!(sent, Err(MailError::Address(_))), "{sent:?}");
    }

    #[test]
    fn settings_that_cannot_work_are_refused_at_the_start() {
        assert!(matches!(Mailer::smtp("imap://localhost", "a@example.com"), Err(MailError::Url(_))));
        assert!(matches!(Mailer::smtp("smtp://localhost:2525", "nobody"), Err(MailError::Address(_))));
    }

    /// A server that takes one mail and returns what was said to it after `DATA`.
    async fn take_one_mail(listener: TcpListener) -> String {
        let (socket, _) = listener.accept().await.unwrap();
        let (read, mut write) = socket.into_split();
        let mut lines = BufReader::new(read).lines();
        write.write_all(b"220 ready\r\n").await.unwrap();
        let mut data = String::new();
        let mut in_data = false;
        while let Some(line) = lines.next_line().await.unwrap() {
            let answer = match line.as_str() {
                "." if in_data => "250 taken\r\n",
                "DATA" => "354 go on\r\n",
                _ if in_data => "",
                _ => "250 fine\r\n",
            };
            if in_data && !answer.is_empty() {
                write.write_all(answer.as_bytes()).await.unwrap();
                return data;
            }
            if in_data {
                data.push_str(&line);
                data.push('\n');
            }
            in_data |= line == "DATA";
            write.write_all(answer.as_bytes()).await.unwrap();
        }
        panic!("the client hung up");
    }

    #[tokio::test]
    async fn a_server_gets_the_same_mail_and_a_missing_one_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp://{}", listener.local_addr().unwrap());
        let mailer = Mailer::smtp(&url, "agentchat@localhost").unwrap();
        let (taken, sent) = tokio::join!(take_one_mail(listener), mailer.send("a@example.com", "s", "x\n\n012345\n"));
        sent.unwrap();
        assert!(taken.lines().any(|line| line == "012345"), "{taken}");
        let sent = mailer.send("a@example.com", "s", "b").await;
        assert!(matches!(sent, Err(MailError::Smtp(_))), "{sent:?}");
    }
}
