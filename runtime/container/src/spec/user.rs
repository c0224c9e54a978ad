//! Who the process is: `user[:group]` resolved in the container's own account files.
//!
//! Digits are numbers, 0..=2147483647, and never names: an image with a row `1000:x:0:0` cannot turn `USER 1000` into
//! root (CVE-2024-40635 and its kin). Anything else is a name, looked up in `/etc/passwd` or `/etc/group`; rows whose
//! numbers do not parse are no rows.
use super::SpecError;
use crate::files::FileLookup;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Highest user or group number: runc's limit, followed by containerd.
const NUMBER_MAX: u32 = i32::MAX as u32;

/// A user as the kernel knows one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// User number.
    pub uid: u32,
    /// Primary group number.
    pub gid: u32,
    /// Groups that list the user as a member, in the order of `/etc/group`.
    pub groups: Vec<u32>,
}

impl Account {
    /// The exact supplementary set: the primary group first, then the others, none twice (CVE-2023-25173: a process
    /// must keep the groups that deny it something).
    pub fn all_groups(&self) -> Vec<u32> {
        let mut all = vec![self.gid];
        for group in &self.groups {
            if !all.contains(group) {
                all.push(*group);
            }
        }
        all
    }
}

/// A part of `user:group`.
enum Part<'text> {
    Number(u32),
    Name(&'text str),
}

/// Resolves `text`; empty is root.
///
/// # Errors
/// [`SpecError::UserSyntax`], [`SpecError::NumberRange`], [`SpecError::UnknownName`], [`SpecError::Accounts`].
pub fn resolve(text: &str, files: &dyn FileLookup) -> Result<Account, SpecError> {
    let text = if text.is_empty() { "0" } else { text };
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let malformed = || SpecError::UserSyntax(text.to_owned());
    if user.is_empty()
        || text.contains('\0')
        || group.is_some_and(|group| group.is_empty() || group.contains(':'))
    {
        return Err(malformed());
    }
    let user = part("user", user)?;
    let group = group.map(|group| part("group", group)).transpose()?;

    let (uid, row_gid, name) = find_user(&user, files)?;
    let group_rows = read(files, "group", &user, GROUP)?;
    let gid = match group {
        None => row_gid,
        Some(Part::Number(number)) => number,
        Some(Part::Name(name)) => rows(&group_rows)
            .find_map(|row| (row.first() == Some(&name)).then(|| number(row.get(2)?)).flatten())
            .ok_or_else(|| SpecError::UnknownName { what: "group", name: name.to_owned(), file: GROUP })?,
    };
    let groups = match &name {
        Some(name) => memberships(&group_rows, name),
        None => Vec::new(),
    };
    Ok(Account { uid, gid, groups })
}

/// The number of a group given by name or number.
///
/// # Errors
/// [`SpecError::UnknownName`] when the image does not know the name; as [`resolve`] otherwise.
pub(super) fn resolve_group(group: &str, files: &dyn FileLookup) -> Result<u32, SpecError> {
    match part("group", group)? {
        Part::Number(number) => Ok(number),
        Part::Name(name) => {
            let text = read(files, "group", &Part::Name(name), GROUP)?;
            rows(&text)
                .find_map(|row| (row.first() == Some(&name)).then(|| number(row.get(2)?)).flatten())
                .ok_or_else(|| SpecError::UnknownName { what: "group", name: name.to_owned(), file: GROUP })
        }
    }
}

fn part<'text>(what: &'static str, text: &'text str) -> Result<Part<'text>, SpecError> {
    if !text.bytes().all(|c| c.is_ascii_digit()) {
        return Ok(Part::Name(text));
    }
    number(&text).map(Part::Number).ok_or_else(|| SpecError::NumberRange { what, text: text.to_owned() })
}

fn number(text: &&str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number <= NUMBER_MAX)
}

/// User number, primary group and, when there is a row, name.
fn find_user(user: &Part<'_>, files: &dyn FileLookup) -> Result<(u32, u32, Option<String>), SpecError> {
    let passwd = read(files, "user", user, PASSWD)?;
    let row = rows(&passwd).find_map(|row| {
        let (name, uid, gid) = (*row.first()?, number(row.get(2)?)?, number(row.get(3)?)?);
        let found = match user {
            Part::Number(number) => uid == *number,
            Part::Name(wanted) => name == *wanted,
        };
        found.then(|| (uid, gid, Some(name.to_owned())))
    });
    match (row, user) {
        (Some(row), _) => Ok(row),
        // An unknown number is a user without a row: group 0, as containerd and Docker have it. Root needs no row to
        // be called root.
        (None, Part::Number(0)) => Ok((0, 0, Some("root".to_owned()))),
        (None, Part::Number(number)) => Ok((*number, 0, None)),
        (None, Part::Name(name)) => {
            Err(SpecError::UnknownName { what: "user", name: (*name).to_owned(), file: PASSWD })
        }
    }
}

/// Numbers of the groups that list `name` among their members.
fn memberships(group_file: &str, name: &str) -> Vec<u32> {
    rows(group_file)
        .filter(|row| row.first() != Some(&name))
        .filter(|row| row.get(3).is_some_and(|members| members.split(',').any(|member| member == name)))
        .filter_map(|row| number(row.get(2)?))
        .collect()
}

fn read(
    files: &dyn FileLookup,
    what: &'static str,
    user: &Part<'_>,
    path: &'static str,
) -> Result<String, SpecError> {
    let bytes = files.read(path).map_err(|source| SpecError::Accounts {
        what,
        name: match user {
            Part::Number(number) => number.to_string(),
            Part::Name(name) => (*name).to_owned(),
        },
        source,
    })?;
    Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
}

fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split(':').take(8).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::LookupError;
    use proptest::prelude::*;

    struct Files {
        passwd: &'static str,
        group: &'static str,
    }

    impl FileLookup for Files {
        fn read(&self, path: &str) -> Result<Option<Vec<u8>>, LookupError> {
            let text = if path == PASSWD { self.passwd } else { self.group };
            Ok((!text.is_empty()).then(|| text.as_bytes().to_vec()))
        }
    }

    const IMAGE: Files = Files {
        passwd: "root:x:0:0:root:/root:/bin/sh\n# comment\n\nwww:x:33:34::/:\n1000:x:0:0::/:\nbroken:x:none:0::/:\n\
                 deep:x:1500:1501::/:\n",
        group: "root:x:0:\nwww:x:34:\nstaff:x:50:www,deep\nadm:x:4:www\ndeny:x:60:deep\n",
    };
    const EMPTY: Files = Files { passwd: "", group: "" };

    fn account(uid: u32, gid: u32, groups: &[u32]) -> Account {
        Account { uid, gid, groups: groups.to_vec() }
    }

    #[test]
    fn users_and_groups_are_found_by_name_and_by_number() {
        let table: &[(&str, Account)] = &[
            ("", account(0, 0, &[])),
            ("root", account(0, 0, &[])),
            ("www", account(33, 34, &[50, 4])),
            ("33", account(33, 34, &[50, 4])),
            ("www:staff", account(33, 50, &[50, 4])),
            ("33:7", account(33, 7, &[50, 4])),
            ("deep:0", account(1500, 0, &[50, 60])),
            ("4711", account(4711, 0, &[])),
            ("4711:4712", account(4711, 4712, &[])),
            ("2147483647:2147483647", account(2_147_483_647, 2_147_483_647, &[])),
        ];
        for (text, expected) in table {
            assert_eq!(&resolve(text, &IMAGE).unwrap(), expected, "{text}");
        }
        assert_eq!(resolve("12:13", &EMPTY).unwrap(), account(12, 13, &[]));
    }

    #[test]
    fn vuln_r11_digits_are_numbers_in_range_and_never_names() {
        // `1000` has a row of that *name* with uid 0: the row of that number counts, and there is none.
        assert_eq!(resolve("1000", &IMAGE).unwrap().uid, 1000);
        for text in [
            "2147483648",
            "4294967295",
            "4294967296",
            "18446744073709551616",
            "0:2147483648",
            "99999999999999",
        ] {
            assert!(matches!(resolve(text, &IMAGE), Err(SpecError::NumberRange { .. })), "{text}");
        }
        for text in ["-1", "+0", " 0", "0x0", "1e3", "\u{663}"] {
            assert!(matches!(resolve(text, &IMAGE), Err(SpecError::UnknownName { .. })), "{text}");
        }
        // A row whose number does not parse is no row; it is not user 0.
        assert!(matches!(resolve("broken", &IMAGE), Err(SpecError::UnknownName { .. })));
    }

    #[test]
    fn vuln_r12_the_supplementary_groups_are_the_primary_and_all_memberships() {
        assert_eq!(resolve("deep", &IMAGE).unwrap().all_groups(), [1501, 50, 60]);
        assert_eq!(resolve("www:staff", &IMAGE).unwrap().all_groups(), [50, 4]);
        assert_eq!(resolve("4711", &IMAGE).unwrap().all_groups(), [0]);
    }

    #[test]
    fn what_is_not_user_or_user_and_group_is_refused() {
        for text in [":", "a:", ":b", "a:b:c", "0:0:0", "a\0"] {
            assert!(matches!(resolve(text, &IMAGE), Err(SpecError::UserSyntax(_))), "{text:?}");
        }
        let Err(error) = resolve("nobody", &EMPTY) else { panic!("found") };
        assert_eq!(
            error.to_string(),
            "user \"nobody\" is not in the image's /etc/passwd: use a name from there, or a number"
        );
    }

    proptest! {
        #[test]
        fn foreign_account_files_never_make_another_number_of_a_number(
            passwd in "([a-z0-9]{0,4}:x:[0-9]{0,11}:[0-9a-z]{0,11}:.{0,9}\n){0,6}",
            group in "\\PC{0,200}",
            uid in 0u32..=NUMBER_MAX,
        ) {
            struct Foreign(String, String);
            impl FileLookup for Foreign {
                fn read(&self, path: &str) -> Result<Option<Vec<u8>>, LookupError> {
                    Ok(Some(if path == PASSWD { self.0.clone() } else { self.1.clone() }.into_bytes()))
                }
            }
            let found = resolve(&uid.to_string(), &Foreign(passwd, group)).unwrap();
            prop_assert_eq!(found.uid, uid);
            prop_assert!(found.gid <= NUMBER_MAX);
        }
    }
}
