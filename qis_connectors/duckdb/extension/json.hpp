// JSON as the router speaks it: requests written, flat answers read.
#pragma once

#include <cstdint>
#include <string>

#include <arrow/result.h>

namespace qis {

// A JSON string literal.
std::string Quoted(const std::string &text);

// Fields of one flat JSON object; what is not there, or is something else, is an error that names it.
arrow::Result<std::string> TextField(const std::string &object, const std::string &name);
arrow::Result<int64_t> NumberField(const std::string &object, const std::string &name);

} // namespace qis
