//! Other people's words, made fit for status, events and logs.
//!
//! Errors of ARM and of the sign-in service may repeat what was sent to them: addresses with a signature in the query,
//! tokens, assertions. None of that may be shown, and it is recognised by its form, since nothing says what it is.

/// Stands for what was taken out.
pub const HIDDEN: &str = "<hidden>";
/// How many characters of a message are shown.
const LONGEST: usize = 400;
/// From this length on, a run of letters and digits is taken for a key, a signature or a token. A UUID has 36 characters.
const SECRET_LENGTH: usize = 40;

/// One line of at most 400 characters, without queries of addresses, bearer tokens and long encoded runs.
pub fn clean(text: &str) -> String {
    // What Microsoft Entra appends is another one each time, and would be another status each time.
    let text = text.split(" Trace ID: ").next().unwrap_or_default();
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut after_bearer = false;
    let mut words = Vec::new();
    for word in text.split_whitespace() {
        words.push(if after_bearer { HIDDEN.to_owned() } else { clean_word(word) });
        after_bearer = word.trim_matches(|c: char| !c.is_alphanumeric()).eq_ignore_ascii_case("bearer");
    }
    shortened(&words.join(" "))
}

/// Text cut to what is shown.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some(_) => text.chars().take(LONGEST - 1).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

fn clean_word(word: &str) -> String {
    // What no query has in it as it is: everything else up to one of these belongs to the query.
    let quote = |c: char| matches!(c, '"' | '\'' | '`' | '<' | '>');
    word.split_inclusive(quote).map(|part| clean_run(&without_query(part, quote))).collect()
}

/// Cuts a query or fragment off an address; what ends the word stays.
fn without_query(part: &str, quote: impl Fn(char) -> bool) -> String {
    let lower = part.to_ascii_lowercase();
    let is_address = lower.contains("://") || part.contains('/') || lower.contains("%2f");
    let query = lower.find('?').or_else(|| lower.find("%3f"));
    let fragment = if lower.contains("://") { lower.find('#') } else { None };
    let has_pairs = |at: usize| part[at..].contains('=') || lower[at..].contains("%3d");
    let cut = match (query, fragment) {
        (Some(query), fragment) if is_address || has_pairs(query) => query.min(fragment.unwrap_or(query)),
        (_, Some(fragment)) => fragment,
        _ => return part.to_owned(),
    };
    let end: String = part.chars().next_back().filter(|c| quote(*c)).into_iter().collect();
    format!("{}{end}", &part[..cut])
}

/// Hides what looks encoded. A run with such a part is hidden as a whole, unless it is a path: then only that part is.
fn clean_run(text: &str) -> String {
    let mut cleaned = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let length = rest.find(|c| !is_encoded(c)).unwrap_or(rest.len());
        let (run, tail) = rest.split_at(length);
        cleaned.push_str(&hidden_run(run));
        let other = tail.find(is_encoded).unwrap_or(tail.len());
        cleaned.push_str(&tail[..other]);
        rest = &tail[other..];
    }
    cleaned
}

fn hidden_run(run: &str) -> String {
    let is_secret =
        |part: &str| part.len() >= SECRET_LENGTH && part.bytes().any(|byte| byte.is_ascii_digit());
    if !run.split(['/', '.']).any(is_secret) {
        return run.to_owned();
    }
    if !run.starts_with('/') {
        return HIDDEN.to_owned();
    }
    run.split('/')
        .map(|part| if part.split('.').any(is_secret) { HIDDEN } else { part })
        .collect::<Vec<_>>()
        .join("/")
}

/// The alphabets of base64, base64url, percent encoding and JSON web tokens.
fn is_encoded(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_' | '.' | '%' | '~')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "kQ7n2Zr9Xb4TqL1sVw8YcF3mHj6DpG5aRt0eUiOoNyM";

    #[test]
    fn ordinary_messages_stay() {
        for text in [
            "Requested change in revisions is not allowed. Reason: Revision asm-1-22 is not supported.",
            "The Resource 'Microsoft.ContainerService/managedClusters/a' under resource group 'rg' was not found.",
            "over scope '/subscriptions/26fe00f8-9173-4872-9134-bb1d2e00343a/resourceGroups/rg' (a, b)?",
            "See https://aka.ms/aks-pending-operation for more details",
            "Is it on? Then it is 100% on = true",
            "PutManagedClusterAndComponents_FailedPreconditionOfTheManagedCluster",
        ] {
            assert_eq!(clean(text), text);
        }
    }

    #[test]
    fn the_query_of_an_address_is_cut_off() {
        let operation =
            "https://management.azure.com/subscriptions/s/operations/26fe00f8-9173-4872-9134-bb1d2e00343a";
        for (text, cleaned) in [
            (
                format!("GET {operation}?api-version=2016-03-30&t=1&s=short failed"),
                format!("GET {operation} failed"),
            ),
            (format!("GET \"{operation}?s=short\", then"), format!("GET \"{operation}\", then")),
            (format!("('{operation}?s=short')"), format!("('{operation}')")),
            ("/operations/1?t=short".to_owned(), "/operations/1".to_owned()),
            ("operation?t=short&c=x".to_owned(), "operation".to_owned()),
            ("https://h/p#access_token=short".to_owned(), "https://h/p".to_owned()),
            ("https%3A%2F%2Fh%2Fp%3Ft%3Dshort".to_owned(), "https%3A%2F%2Fh%2Fp".to_owned()),
            ("HTTPS://H/P?S=short".to_owned(), "HTTPS://H/P".to_owned()),
        ] {
            assert_eq!(clean(&text), cleaned);
        }
    }

    #[test]
    fn tokens_and_keys_are_hidden() {
        let jwt = format!("eyJhbGciOiJub25lIn0.{SECRET}.{SECRET}");
        for text in [
            format!("Authorization: Bearer {jwt}"),
            format!("token '{jwt}' is expired"),
            format!("{{\"client_assertion\":\"{jwt}\"}}"),
            format!("sig={SECRET}=, x"),
            format!("base64 ab/{SECRET}/cd=="),
            format!("/path/{SECRET}/x"),
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".to_owned(),
        ] {
            let cleaned = clean(&text);
            assert!(cleaned.contains(HIDDEN), "{cleaned}");
            assert!(!cleaned.contains(&SECRET[..8]) && !cleaned.contains("eyJ"), "{cleaned}");
            assert!(!cleaned.contains("abcdef") && !cleaned.contains("ab/"), "{cleaned}");
        }
        assert_eq!(clean("use bearer: hush, please"), "use bearer: <hidden> please");
        assert_eq!(clean("Bearer\n hush"), "Bearer <hidden>");
    }

    #[test]
    fn a_message_is_one_short_line() {
        assert_eq!(clean(" a\r\n\u{1b}[31mb\u{0}  c "), "a [31mb c");
        let long = clean(&"é ".repeat(300));
        assert_eq!(long.chars().count(), 400);
        assert!(long.ends_with('…'));
        // Cut after hiding: no half of a secret shows.
        let text = format!("{}{SECRET}", "ab ".repeat(130));
        assert!(!clean(&text).contains(&SECRET[..4]));
        assert_eq!(clean(""), "");
    }
}
