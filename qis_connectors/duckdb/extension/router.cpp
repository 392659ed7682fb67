#include "router.hpp"

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <iomanip>
#include <sstream>

#include "json.hpp"

namespace qis {

namespace flight = arrow::flight;
using arrow::Result;
using arrow::Status;

static constexpr double kLongestTimeout = 86'400;
static constexpr int kTokenBytes = 4096;
static constexpr auto kTokenAge = std::chrono::minutes(2);
static constexpr const char *kRouterName = "router.qis";

// Writes a token for the bundle in a folder, or what is wrong with it, and says which.
using TokenSource = bool (*)(const char *folder, char *text, int size);
static std::atomic<TokenSource> token_source {nullptr};

extern "C" __attribute__((visibility("default"))) void qis_set_token_source(TokenSource source) {
	token_source = source;
}

std::string Request::Encode() const {
	std::string text = "{\"v\": 1, \"address\": " + Quoted(address);
	if (since) {
		text += ", \"since\": " + std::to_string(*since);
	}
	if (until) {
		text += ", \"until\": " + std::to_string(*until);
	}
	if (!columns.empty()) {
		text += ", \"columns\": [";
		for (size_t at = 0; at < columns.size(); at++) {
			text += (at ? ", " : "") + Quoted(columns[at]);
		}
		text += "]";
	}
	if (!filters.empty()) {
		text += ", \"filters\": " + filters;
	}
	if (!similar_to.empty()) {
		text += ", \"similar_to\": {\"context\": " + similar_to;
		if (threshold) {
			std::ostringstream digits;
			digits << std::setprecision(17) << *threshold;
			text += ", \"threshold\": " + digits.str();
		}
		if (!definition.empty()) {
			text += ", \"definition\": " + Quoted(definition);
		}
		text += "}";
	}
	return text + "}";
}

static Result<std::string> FileText(const char *setting, const std::string &path) {
	std::ifstream file(path);
	std::stringstream text;
	text << file.rdbuf();
	if (!file || text.str().empty()) {
		return Status::Invalid(setting, ": cannot read '", path, "'");
	}
	return text.str();
}

// A token that is good for some minutes, or why there is none. Python signs it: no library that a wheel of pyarrow or
// DuckDB brings lets an extension use its Ed25519. It is asked seldom: whoever waits for us may hold its lock.
Result<std::string> Router::Token() const {
	auto source = token_source.load();
	if (!settings_.token.empty() || settings_.identity.empty() || !source) {
		return settings_.token;
	}
	std::lock_guard<std::mutex> lock(token_mutex_);
	auto now = std::chrono::steady_clock::now();
	if (token_.empty() || now - token_made_ > kTokenAge) {
		char text[kTokenBytes] = "";
		if (!source(settings_.identity.c_str(), text, sizeof text)) {
			return Status::Invalid(text);
		}
		token_ = text;
		token_made_ = now;
	}
	return token_;
}

// The bundle of identity.py.
Status Router::ProveIdentity(flight::FlightClientOptions &options) {
	auto preset = std::getenv("QIS_IDENTITY");
	if (settings_.identity.empty() && preset) {
		settings_.identity = preset;
	}
	if (settings_.identity.empty()) {
		return Status::OK();
	}
	const auto &folder = settings_.identity;
	ARROW_ASSIGN_OR_RAISE(options.tls_root_certs, FileText("qis_identity", folder + "/ca.pem"));
	ARROW_ASSIGN_OR_RAISE(options.cert_chain, FileText("qis_identity", folder + "/cert.pem"));
	ARROW_ASSIGN_OR_RAISE(options.private_key, FileText("qis_identity", folder + "/key.pem"));
	options.override_hostname = kRouterName;
	return Token().status();
}

Result<std::shared_ptr<Router>> Router::Connect(const std::string &url, const Settings &settings) {
	if (url.rfind("grpc://", 0) != 0 && url.rfind("grpc+tls://", 0) != 0 && url.rfind("grpc+tcp://", 0) != 0) {
		return Status::Invalid("router url '", url, "' is not grpc://HOST:PORT or grpc+tls://HOST:PORT");
	}
	auto router = std::make_shared<Router>();
	router->url_ = url;
	router->settings_ = settings;
	auto location = flight::Location::Parse(url);
	if (!location.ok()) {
		return Status::Invalid("router url '", url, "' is not grpc://HOST:PORT or grpc+tls://HOST:PORT");
	}
	if (!(settings.timeout > 0 && settings.timeout <= kLongestTimeout)) {
		return Status::Invalid("qis_timeout: seconds are above 0 and at most ", static_cast<int>(kLongestTimeout));
	}
	for (unsigned char letter : settings.token) {
		if (letter < 0x20 || letter > 0x7e) { // gRPC ends the process on such a header
			return Status::Invalid("qis_token: a token is printable ASCII");
		}
	}
	auto options = flight::FlightClientOptions::Defaults();
	if (!settings.tls_roots.empty()) {
		ARROW_ASSIGN_OR_RAISE(options.tls_root_certs, FileText("qis_tls_roots", settings.tls_roots));
	}
	if (url.rfind("grpc+tls://", 0) == 0) {
		ARROW_RETURN_NOT_OK(router->ProveIdentity(options));
	}
	auto client = flight::FlightClient::Connect(*location, options);
	if (!client.ok()) {
		return router->OneLine(client.status());
	}
	router->client_ = std::move(*client);
	return router;
}

Result<std::unique_ptr<flight::FlightInfo>> Router::Describe(const Request &request) {
	auto info =
	    client_->GetFlightInfo(Options(settings_.timeout), flight::FlightDescriptor::Command(request.Encode()));
	return info.ok() ? std::move(info) : OneLine(info.status());
}

Result<std::unique_ptr<flight::FlightStreamReader>> Router::Read(const flight::Ticket &ticket) {
	auto reader = client_->DoGet(Options(-1), ticket);
	return reader.ok() ? std::move(reader) : OneLine(reader.status());
}

static Result<std::vector<Address>> Listed(flight::FlightListing &listing) {
	std::vector<Address> found;
	while (true) {
		ARROW_ASSIGN_OR_RAISE(auto info, listing.Next());
		if (!info) {
			return found;
		}
		const auto &path = info->descriptor().path;
		if (path.size() != 1) {
			return Status::SerializationError("an address without its name");
		}
		ARROW_ASSIGN_OR_RAISE(auto first_time, NumberField(info->app_metadata(), "first_time"));
		ARROW_ASSIGN_OR_RAISE(auto last_time, NumberField(info->app_metadata(), "last_time"));
		found.push_back({path[0], info->total_records(), info->total_bytes(), first_time, last_time});
	}
}

Result<std::vector<Address>> Router::Addresses(const std::string &pattern) {
	auto listing = client_->ListFlights(Options(settings_.timeout), {pattern});
	if (!listing.ok()) {
		return OneLine(listing.status());
	}
	auto found = Listed(**listing);
	return found.ok() ? found : OneLine(found.status());
}

static Result<std::string> OneAnswer(flight::ResultStream &stream) {
	ARROW_ASSIGN_OR_RAISE(auto answer, stream.Next());
	if (!answer || !answer->body) {
		return Status::SerializationError("an action without an answer");
	}
	return answer->body->ToString();
}

Result<std::string> Router::Act(const std::string &action, const std::string &body, double timeout) {
	auto stream = client_->DoAction(Options(timeout), {action, arrow::Buffer::FromString(body)});
	if (!stream.ok()) {
		return OneLine(stream.status());
	}
	auto answer = OneAnswer(**stream);
	return answer.ok() ? answer : OneLine(answer.status());
}

Result<flight::FlightClient::DoPutResult> Router::Put(const std::string &command,
                                                      const std::shared_ptr<arrow::Schema> &schema) {
	auto streams = client_->DoPut(Options(settings_.timeout), flight::FlightDescriptor::Command(command), schema);
	return streams.ok() ? std::move(streams) : OneLine(streams.status());
}

flight::FlightCallOptions Router::Options(double timeout) const {
	flight::FlightCallOptions options;
	options.timeout = flight::TimeoutDuration(timeout);
	auto token = Token().ValueOr("");
	if (!token.empty()) {
		options.headers.emplace_back("authorization", "Bearer " + token);
	}
	return options;
}

std::string Router::Patience() const {
	std::ostringstream text;
	text << settings_.timeout << " s (SET qis_timeout)";
	return text.str();
}

// What the other side said, without what gRPC and Flight have wrapped around it.
static std::string Cause(const Status &status) {
	std::string text = status.message();
	for (const char *tail : {"\n", ". gRPC client debug context:", ". Detail: "}) {
		text = text.substr(0, text.find(tail));
	}
	const std::string wrapping = "with message: ";
	auto at = text.rfind(wrapping);
	return at == std::string::npos ? text : text.substr(at + wrapping.size());
}

Status Router::OneLine(const Status &status) const {
	if (status.ok()) {
		return status;
	}
	auto cause = Cause(status);
	auto detail = flight::FlightStatusDetail::UnwrapStatus(status);
	if (!detail) {
		// Flight has no code for what a server calls invalid: it comes as Arrow's own.
		return Status::Invalid("router ", url_, ": ", cause);
	}
	switch (detail->code()) {
	case flight::FlightStatusCode::Unavailable: {
		std::string lower = cause;
		std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
		if (lower.find("socket closed") != std::string::npos) {
			cause = "it closes the connection: is that its port, and is qis_identity a bundle of its network?";
		}
		if (lower.find("ssl handshake failed") != std::string::npos) {
			cause = "it is not a router of a network that you have shown a bundle of (SET qis_identity)";
		}
		for (const char *known : {"connection refused", "address lookup failed", "connection reset", "timed out"}) {
			if (lower.find(known) != std::string::npos) {
				cause = known;
			}
		}
		return Status::IOError("cannot reach router ", url_, ": ", cause);
	}
	case flight::FlightStatusCode::TimedOut:
		return Status::IOError("router ", url_, " does not answer within ", Patience());
	case flight::FlightStatusCode::Unauthenticated:
		return Status::Invalid("router ", url_, " refuses the token: ", cause, " (SET qis_token)");
	case flight::FlightStatusCode::Unauthorized:
		return Status::Invalid("router ", url_, " refuses: ", cause);
	default:
		return Status::Invalid("router ", url_, ": ", cause);
	}
}

} // namespace qis
