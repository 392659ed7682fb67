// A Flight connection to a router: what it is asked, and its errors in one line each.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <arrow/flight/client.h>

namespace qis {

// What SQL has set: see settings.cpp.
struct Settings {
	std::string identity;
	std::string token;
	std::string tls_roots;
	double timeout = 20;
};

// What a reader asks for, as request.py describes it; `columns` empty: all.
struct Request {
	std::string address;
	std::vector<std::string> columns;
	std::optional<int64_t> since;
	std::optional<int64_t> until;
	std::string filters;
	std::string similar_to; // a context, as JSON; empty: whoever
	std::optional<double> threshold;
	std::string definition;

	std::string Encode() const;
};

struct Address {
	std::string address;
	int64_t packets;
	int64_t bytes;
	int64_t first_time;
	int64_t last_time;
};

// Every method answers with a Status whose message is one line, fit to be shown as it is.
class Router {
public:
	static arrow::Result<std::shared_ptr<Router>> Connect(const std::string &url, const Settings &settings);

	arrow::Result<std::unique_ptr<arrow::flight::FlightInfo>> Describe(const Request &request);
	arrow::Result<std::unique_ptr<arrow::flight::FlightStreamReader>> Read(const arrow::flight::Ticket &ticket);
	arrow::Result<std::vector<Address>> Addresses(const std::string &pattern);
	// The one answer to an action.
	arrow::Result<std::string> Act(const std::string &action, const std::string &body, double timeout);
	arrow::Result<arrow::flight::FlightClient::DoPutResult> Put(const std::string &command,
	                                                            const std::shared_ptr<arrow::Schema> &schema);

	// The timeout, for an error's text.
	std::string Patience() const;
	arrow::Status OneLine(const arrow::Status &status) const;
	const Settings &settings() const {
		return settings_;
	}
	const std::string &url() const {
		return url_;
	}

private:
	arrow::Status ProveIdentity(arrow::flight::FlightClientOptions &options);
	arrow::Result<std::string> Token() const;
	arrow::flight::FlightCallOptions Options(double timeout) const;

	std::string url_;
	Settings settings_;
	std::unique_ptr<arrow::flight::FlightClient> client_;
	mutable std::mutex token_mutex_;
	mutable std::string token_;
	mutable std::chrono::steady_clock::time_point token_made_;
};

} // namespace qis
