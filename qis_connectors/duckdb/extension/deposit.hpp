// A deposit of any size, all or nothing: staged in a transaction of the router's, then committed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "router.hpp"

namespace qis {

class Deposit {
public:
	static arrow::Result<std::unique_ptr<Deposit>> Begin(std::shared_ptr<Router> router);
	// Aborts what is not committed.
	~Deposit();

	// Rows of columns as they come, in the order of the packet's fields; sent once there are enough of them.
	arrow::Status Add(std::shared_ptr<arrow::RecordBatch> batch);
	// Returns once all of them are on the router's disk and visible.
	arrow::Status Commit();

private:
	arrow::Status Send();

	std::shared_ptr<Router> router_;
	std::string transaction_;
	std::vector<std::shared_ptr<arrow::RecordBatch>> waiting_;
	int64_t waiting_rows_ = 0;
	int64_t rows_ = 0;
	bool is_committed_ = false;
};

// The types and names of a packet's fields, of which a deposit has the first fifteen or more.
const std::shared_ptr<arrow::Schema> &PacketSchema();
inline constexpr int kInterchangeFields = 15;

} // namespace qis
